"""The memory of a GPU that trains.

The activations follow a formula for decoders with RMSNorm and a gated feed-forward
block (Llama, Qwen, Mistral); a test holds it to what PyTorch really keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.recipe.schema import Policy, Sampled, Stage

if TYPE_CHECKING:
    from alignkit.models.shape import Block, Shape

GIB = 2**30


# Bytes of optimizer state per trained number, and numbers kept in the weights' own
# type. Absent: not known.
OPTIMIZERS: dict[str, tuple[float, int]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused"), (0, 2)),
    **dict.fromkeys(
        ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_8bit"),
        (2 + 8 / 256, 0),
    ),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), (1 + 4 / 256, 0)),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), (4, 0)),
    "paged_adamw_32bit": (8, 0),
    "adamw_torch_4bit": (1 + 8 / 128, 0),
    "sgd": (0, 0),
    "adagrad": (0, 1),
}


HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32768  # a tile of TRL's fused head


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the sampled rows: a row (for rollouts, its prompt) on average, the
    longest, and the most allowed.
    """

    rows: int
    mean: float
    longest: int
    limit: int | None


def longest_response(config: Stage) -> int:
    if not isinstance(config, Sampled):
        return 0
    return config.generation.sampling.max_new_tokens


def activation_bytes(block: Block, element: int) -> int:
    """What one layer keeps for its backward pass, per token.

    Two RMSNorms in 32 bits with their results, queries, keys, values and output of the
    attention with its log-sum-exp, and four tensors of the feed-forward block; element:
    bytes of a number.
    """
    norms = 2 * ((4 + 2 * element) * block.hidden + 4)
    attention = element * 2 * (block.queries + block.keys) + 4 * block.heads
    return norms + attention + 4 * element * block.intermediate


def memory(
    config: Stage,
    settings: Mapping[str, Any],
    shape: Shape,
    lengths: Lengths | None,
    batch: int,
) -> dict[str, int]:
    """Bytes by part on each GPU at the longest row that was seen; a part that cannot be
    known is left out.

    `settings`: as in `of_stage`. `batch`: completions that one process generates at
        once. The activations of LoRA's own small matrices are not counted.
    """
    sharded = (
        config.launch.processes if "full_shard" in str(settings["fsdp"] or "") else 1
    )
    found = {
        "weights": shape.weight_bytes // sharded,
        "gradients": shape.trainable_bytes // sharded,
    }
    if settings["optim"] in OPTIMIZERS:
        found["optimizer"] = optimizer_bytes(settings["optim"], shape) // sharded
    # with LoRA the reference is the model without its adapter
    frozen_copy = config.model.lora is None
    if frozen_copy and (
        config.method == "dpo"
        or (config.method in ("grpo", "rloo") and settings["beta"])
    ):
        found["reference model"] = shape.weight_bytes // sharded
    if lengths is None or shape.block is None:
        return found
    block, rows = (
        shape.block,
        settings["per_device_train_batch_size"] * (2 if config.method == "dpo" else 1),
    )
    width = lengths.longest + longest_response(config)
    if lengths.limit is not None:
        width = (
            lengths.limit if config.train.get("packing") else min(width, lengths.limit)
        )
    tokens = rows * width
    layer = tokens * activation_bytes(block, shape.element)
    if settings["gradient_checkpointing"]:
        found["activations (checkpointed)"] = (
            tokens * shape.element * block.hidden * block.layers + layer
        )
    else:
        found["activations"] = layer * block.layers
    tile = (
        min(tokens, HEAD_TOKENS)
        * min(shape.vocabulary, HEAD_VOCABULARY)
        * shape.element
    )
    weight = 0 if config.model.lora else 4 * shape.vocabulary * block.hidden
    found["fused head"] = tile + weight + 4 * tokens * block.hidden
    if isinstance(config, Policy) and config.generation.engine == "transformers":
        found["cache of rollouts"] = (
            2 * block.layers * block.keys * shape.element * batch * width
        )
    return found


def optimizer_bytes(optim: str, shape: Shape) -> int:
    """Bytes of the optimizer's state after its first step."""
    each, copies = OPTIMIZERS[optim]
    return int(each * shape.trainable) + copies * shape.trainable_bytes


def peak(parts: dict[str, int]) -> int:
    """The sum of the parts; rollouts and the training step do not need their memory at
    the same time.
    """
    cache = parts.get("cache of rollouts", 0)
    passing = sum(
        size
        for name, size in parts.items()
        if name == "fused head" or name.startswith("activations")
    )
    return sum(parts.values()) - min(cache, passing)


def gib(size: float) -> str:
    """A number of bytes in words."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
