"""Trackers (wandb, trackio, tensorboard) through TRL's `report_to`, with our metric
names; none can fail a run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from alignkit.recipe.schema import Stage
from alignkit.terminal import say
from alignkit.train.callbacks import NAMES
from alignkit.train.tables import send, tables_of

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def prepare(track: Sequence[str], tag: str, folder: Path) -> None:
    """Tell the trackers where to write, and wandb to stay offline where it has no key."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    if "wandb" in track:
        os.environ.setdefault("WANDB_DIR", str(folder))
        os.environ.setdefault("WANDB_PROJECT", "alignkit")
        os.environ.setdefault("WANDB_TAGS", tag)
        notes = folder / "diff.yaml"
        if notes.is_file():
            os.environ.setdefault("WANDB_NOTES", notes.read_text(encoding="utf-8"))
        known = os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").is_file()
        if not known:
            os.environ.setdefault("WANDB_MODE", "offline")


class Guarded:
    """A tracker whose first failure is one warning, and turns it off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = False

    def attempt(
        self, call: Callable[..., object], *arguments: Any, **keywords: Any
    ) -> None:
        """Call it, unless the tracker is off."""
        if self.failed:
            return
        try:
            call(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the work must go on
            self.failed = True
            log.warning("tracker %s failed and is off: %s", self.name, error)


class Tracker(Guarded, TrainerCallback):
    """Stands before a tracker's own callback and renames metrics."""

    def __init__(
        self,
        name: str,
        inner: TrainerCallback,
        recipe: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        super().__init__(name)
        self.inner = inner
        self.recipe = recipe
        self.folder = folder

    def _call(self, event: str, *arguments: Any, **keywords: Any) -> None:
        self.attempt(getattr(self.inner, event), *arguments, **keywords)

    def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
        """Open the tracker's run; wandb's config gets the resolved recipe."""
        self._call("on_train_begin", *arguments, **keywords)
        if self.name == "wandb" and not self.failed:
            import wandb

            if wandb.run is not None:
                wandb.config.update(
                    {"recipe": dict(self.recipe)}, allow_val_change=True
                )

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        """Log under the names of metrics.jsonl."""
        renamed = {NAMES.get(key, key): value for key, value in (logs or {}).items()}
        self._call("on_log", args, state, control, logs=renamed, **rest)

    def evaluated(
        self,
        args: Any,
        state: Any,
        control: Any,
        numbers: Mapping[str, float],
        **rest: Any,
    ) -> None:
        """Log `eval/<name>/<metric>`; transformers takes keys that begin with `eval_`
        for those.
        """
        logs = {
            f"eval_{key.removeprefix('eval/')}": value for key, value in numbers.items()
        }
        self._call("on_log", args, state, control, logs=logs, **rest)

    def on_train_end(
        self, args: Any, state: Any, control: Any, **keywords: Any
    ) -> None:
        """The tables of the run's end, where this process writes; then close it."""
        if self.folder is not None and state.is_world_process_zero:
            self.attempt(send, self.name, tables_of(self.folder))
        self._call("on_train_end", args, state, control, **keywords)


def guard(
    trainer: Any, config: Stage, recipe: Mapping[str, Any], folder: Path
) -> list[Tracker]:
    """Put a Tracker before each tracker's callback of a trainer."""
    from transformers.integrations import get_reporting_integration_callbacks

    found = []
    callbacks = trainer.callback_handler.callbacks
    for name in config.track:
        (kind,) = get_reporting_integration_callbacks([name])
        for index, callback in enumerate(callbacks):
            if type(callback) is kind:
                callbacks[index] = Tracker(name, callback, recipe, folder)
                found.append(callbacks[index])
    return found


def say_how_to_sync(console: Console, track: Sequence[str], folder: Path) -> None:
    """The command that uploads an offline wandb run."""
    offline = (
        sorted((folder / "wandb").glob("offline-run-*")) if "wandb" in track else []
    )
    for run in offline:
        say(console, f"wandb was offline; to upload: wandb sync {run}")
