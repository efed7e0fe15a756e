"""Requested beside effective settings: what a recipe asked for must be what the first optimizer step did."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from alignkit.run import Run
from alignkit.trainers.seam import verify_effective

_TRAIN = (
    *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "beta", "epsilon", "epsilon_high"),
)
_GENERATION = ("temperature", "top_p", "top_k", "min_new_tokens", "max_new_tokens", "stop")


def requested(config: Any, engine: str) -> dict[str, Any]:
    """The settings of a recipe that a trainer can be seen to use, by dotted key.

    `engine` is the one chosen for rollouts ("" where there are none).
    """
    found: dict[str, Any] = {"method": config.method, "launch.processes": config.launch.processes}
    for section in ("loss", "advantage"):
        stated = getattr(config, section)
        if stated is not None:
            plain = {**stated.model_dump(exclude_none=True, exclude=set(stated.options)), **stated.options}
            found |= {f"{section}.{key}": value for key, value in plain.items()}
    found |= {f"train.{key}": config.train[key] for key in _TRAIN if key in config.train}
    if config.generation is not None:
        found |= {f"generation.{key}": getattr(config.generation, key) for key in _GENERATION}
        found["generation.engine"] = engine
    return found


class SettingsCallback(TrainerCallback):
    """After the first optimizer step, writes both into the manifest and stops the run where they differ."""

    def __init__(self, run: Run, wanted: dict[str, Any]) -> None:
        self.run = run
        self.wanted = wanted
        self.trainer: Any = None  # callbacks are made before the trainer
        self._done = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compare once."""
        if self._done:
            return
        self._done = True
        effective = self.trainer.effective_settings()
        if effective["loss.name"] == "trl" and effective["method"] == "grpo":
            scale = {"group": "std", "none": "none"}.get(self.trainer.scale_rewards, self.trainer.scale_rewards)
            effective |= {"advantage.name": "group", "advantage.scale": scale}
        if state.is_world_process_zero:
            self.run.update(requested=self.wanted, effective=effective)
        verify_effective(self.wanted, effective)
