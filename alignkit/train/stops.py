"""Training that is asked to stop, or hangs: its step is finished, a checkpoint saved,
then it stops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from alignkit import kits
from alignkit.run import Run, deadlines, stopping

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe.schema import Stage


def watched(
    config: Stage, registry: Registry, run: Run
) -> contextlib.AbstractContextManager[None]:
    """The work inside is held to the deadlines of a recipe."""
    launch = config.launch
    again = kits.command(registry.kits, "run", "--resume", run.folder)
    limits = launch.deadline_seconds, launch.grace_seconds
    return deadlines.watched(run, *limits, again)


class StopCallback(TrainerCallback):
    """Stops at the end of a step once one of the processes was asked to.

    `whole` says whether a checkpoint may be saved at the end of this step; until it may,
    training goes on, within `launch.grace_seconds`.
    """

    def __init__(self, trainer: Any, whole: Callable[[], bool]) -> None:
        self.trainer = trainer
        self.whole = whole
        self.stops = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Behind the evals of the step, and behind what puts checkpoints off."""
        if not self._asked():
            return
        if args.save_only_model:  # nothing could go on from it
            raise stopping.Stopped
        if self.whole():
            self.stops = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The checkpoint is whole."""
        if self.stops:
            raise stopping.Stopped

    def _asked(self) -> bool:
        """Alike in all processes: a signal reaches them at different moments."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return stopping.asked()
        asked = torch.tensor(float(stopping.asked()), device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum") > 0)
