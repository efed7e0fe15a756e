"""From a recipe to TRL's config objects: nothing renamed, nothing guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.recipe.rules.settings import ALWAYS, WITHOUT_GPU
from alignkit.recipe.schema import GRPO, Loss, Policy, Stage, walk
from alignkit.recipe.trl import OWN_DEFAULTS, built


def arguments(config: Stage, folder: Path, *, engine: str, cuda: bool) -> Any:
    """The SFTConfig, GRPOConfig, RLOOConfig or DPOConfig that a recipe means.

    `train:` holds TRL's own fields; the recipe's core keys fill in the rest. Without a
    GPU, what TRL turns on by default and a CPU cannot do (bf16, gradient checkpointing,
    pinned memory) is off unless asked for.

    Raises:
        InputError: TRL refuses a setting, which the recipe's rules should have said.
    """
    from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig

    fields: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "run_name": folder.name,
        "report_to": list(config.track) or "none",
        **ALWAYS,
    }
    if not cuda:
        fields |= WITHOUT_GPU
        if config.launch.processes > 1:
            fields["ddp_backend"] = "gloo"
    fields |= _declared(config, engine)
    if isinstance(config, Policy):
        fields |= _rollouts(config, engine)
    if engine == "vllm":
        fields |= OWN_DEFAULTS.get(config.method, {})
    if config.loss is not None and config.loss.name == "trl":
        fields |= _stock_loss(config, config.loss)
    # What `generation` says stands in the same field as the options that only TRL
    # knows.
    extra = fields.pop("generation_kwargs", {})
    extra |= config.train.get("generation_kwargs") or {}
    fields |= config.train
    if extra:
        fields["generation_kwargs"] = extra
    kinds = {"sft": SFTConfig, "grpo": GRPOConfig, "rloo": RLOOConfig, "dpo": DPOConfig}
    kind = kinds[config.method]
    try:
        return kind(**built(kind, fields))
    except (ValueError, TypeError) as error:
        raise InputError(f"train: {kind.__name__} refuses this: {error}") from error


def _declared(config: Stage, engine: str) -> dict[str, Any]:
    """What the declarations of the recipe's keys hand to TRL as it is."""
    fields = {}
    for path, known in walk.declarations().items():
        if not known.key.trl or config.method not in known.methods:
            continue
        if "vllm" in path and engine != "vllm":
            continue
        value = walk.value_at(config, path)
        if value is not None:
            fields[known.key.trl] = value
    return fields


def _rollouts(config: Policy, engine: str) -> dict[str, Any]:
    vllm = engine == "vllm"
    beyond = config.generation.sampling.beyond_trl("vllm" if vllm else "transformers")
    if vllm and "stop" in beyond:
        beyond["include_stop_str_in_output"] = True
    weights = [reward.weight for reward in config.rewards.values()]
    return {"use_vllm": vllm, "reward_weights": weights, "generation_kwargs": beyond}


def _stock_loss(config: Stage, loss: Loss) -> dict[str, Any]:
    """TRL's own loss, and what the recipe's `advantage` means to it."""
    fields = loss.options
    if isinstance(config, GRPO) and config.advantage is not None:
        scale = config.advantage.options.get("scale", "std")
        fields["scale_rewards"] = {"std": "group", "none": "none"}[scale]
    return fields
