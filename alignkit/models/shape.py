"""A model's sizes from its configuration alone: no weights are read and none are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.errors import MissingError
from alignkit.models.source import base_of, explained, resolve
from alignkit.models.tiny import build_config, build_tokenizer
from alignkit.recipe.schema import Build

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What memory and time depend on. Bytes are of one whole copy; gradients take
    `trainable_bytes` again.
    """

    parameters: int
    trainable: int
    weight_bytes: int  # as they lie in memory: quantized, with adapters
    model_bytes: int  # as the final model is written: not quantized, adapters merged
    trainable_bytes: int
    element: int  # bytes of one activation's number
    vocabulary: int
    # None where the configuration names no gated feed-forward block
    block: Block | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The decoder layers: widths in numbers per token."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int  # of all heads together
    keys: int  # of all key-value heads together


def configuration(
    path: str | None, build: Build | None, revision: str | None
) -> PretrainedConfig | None:
    """The transformers configuration of the model that a recipe's `model` means; None where it is not here."""
    from transformers import AutoConfig

    if build is not None:
        return build_config(build, build_tokenizer(build.tokenizer, build.max_length))
    assert path is not None
    source, revision = base_of(resolve(path, revision), revision)
    try:
        with explained(source, "its configuration"):
            return AutoConfig.from_pretrained(
                source, revision=revision or "main", trust_remote_code=False
            )
    except MissingError:
        return None


# positions of a model whose configuration sets no end to them (ALiBi, recurrent)
ENDLESS = 2**31


def context(config: PretrainedConfig) -> int:
    """Tokens that a model reads at most, prompt and response together."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", ENDLESS))


def adapted(
    config: PretrainedConfig, lora: Mapping[str, object]
) -> tuple[tuple[str, ...], bool]:
    """The names of a model's modules, and whether LoRA adapts its head; tried on torch's meta device.

    Raises:
        InputError: PEFT cannot put such an adapter on the model.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    from alignkit.models import add_lora

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        names = tuple(name for name, _ in model.named_modules())
        # where the adapter's first weights come from the model's own, there is nothing to compute them from
        start = lora.get("init_lora_weights")
        plain = {**lora, "init_lora_weights": True} if isinstance(start, str) else lora
        model = add_lora(model, plain)
    return names, isinstance(model.get_output_embeddings(), BaseTunerLayer)


def shape(
    path: str | None,
    build: Build | None = None,
    *,
    dtype: str,
    revision: str | None = None,
    lora: Mapping[str, object] | None = None,
    quantize: Mapping[str, object] | None = None,
) -> Shape | None:
    """The sizes of the model that a recipe's `model` means, laid out on torch's meta
    device; `dtype` is torch's name.

    None where its configuration is not here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from alignkit.models import add_lora

    config = configuration(path, build, revision)
    if config is None:
        return None
    number = getattr(torch, dtype)
    with explained(str(path), "its configuration"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=number)
        whole = sum(p.numel() * p.element_size() for p in model.parameters())
        saved = _saved_by_quantizing(model, quantize)
        if lora is not None:
            model = add_lora(model, lora)
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in trained),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters) - saved,
        model_bytes=whole,
        trainable_bytes=sum(p.numel() * p.element_size() for p in trained),
        element=number.itemsize,
        vocabulary=config.get_text_config().vocab_size,
        block=_block(config.get_text_config().to_dict()),
    )


def _saved_by_quantizing(
    model: PreTrainedModel, quantize: Mapping[str, object] | None
) -> int:
    """Bytes less than in full: every linear layer but the head in 4 bits with a scale
    per 64 numbers, or in 8.
    """
    from torch import nn

    if not quantize:
        return 0
    scale = 1 / 64 if quantize.get("bnb_4bit_use_double_quant") else 4 / 64
    each = 0.5 + scale if quantize.get("load_in_4bit") else 1.0
    head = model.get_output_embeddings()
    linear = [
        m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head
    ]
    return int(sum(w.numel() * (w.element_size() - each) for w in linear))


def _block(config: Mapping[str, Any]) -> Block | None:
    names = (
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
    )
    if any(config.get(name) is None for name in names):
        return None
    layers, hidden, intermediate, heads, groups = (config[name] for name in names)
    each = config.get("head_dim") or hidden // heads
    return Block(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        queries=heads * each,
        keys=groups * each,
    )
