"""What a field of TRL's config will be: stated, set by align, or TRL's own default."""

from __future__ import annotations

from typing import Any

from alignkit.recipe import trl
from alignkit.recipe.schema import Sampled, Trained

# What align sets where the recipe says nothing; without a GPU also what a CPU cannot do.
ALWAYS = {"logging_steps": 1, "disable_tqdm": True}
WITHOUT_GPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
}


def setting(config: Trained, name: str, gpus: int | None = None) -> Any:
    """The value in force of a `train:` field.

    `gpus`: how many there are; None leaves TRL's defaults for a machine with one.
    """
    if name in config.train:
        return config.train[name]
    if gpus == 0 and name in WITHOUT_GPU:
        return WITHOUT_GPU[name]
    return ALWAYS[name] if name in ALWAYS else trl.default(config.method, name)


def sampling(config: Sampled, name: str) -> Any:
    """An option of `generation`, also beside others that it does not go with."""
    return config.generation.model_dump(include={name})[name]
