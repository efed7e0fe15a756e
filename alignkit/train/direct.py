"""Trackers of what has no trainer of TRL's: one run for a whole expert iteration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignkit.recipe.schema import Stage
from alignkit.train.tables import send, tables_of
from alignkit.train.tracking import prepare

log = logging.getLogger(__name__)
Numbers = Mapping[str, float]


class Direct:
    """A tracker's run. Its first failure is one warning, and turns it off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = False
        self._log: Callable[[int, Numbers], Any] = lambda step, numbers: None
        self._close: Callable[[], Any] = lambda: None

    def open(self, title: str, recipe: Mapping[str, Any], folder: Path) -> None:
        """Begin the run."""
        self._try(self._open, title, recipe, folder)

    def log(self, step: int, numbers: Numbers) -> None:
        """Numbers by name."""
        self._try(self._log, step, numbers)

    def close(self, folder: Path) -> None:
        """The tables of the run's end, and its end."""
        self._try(lambda: send(self.name, tables_of(folder)))
        self._try(self._close)

    def _open(self, title: str, recipe: Mapping[str, Any], folder: Path) -> None:
        if self.name == "wandb":
            import wandb

            quiet = wandb.Settings(silent=True)
            stated = {"recipe": dict(recipe)}
            run = wandb.init(name=title, config=stated, settings=quiet)
            self._log = lambda step, numbers: run.log(dict(numbers), step=step)
            self._close = run.finish
        elif self.name == "trackio":
            import trackio

            trackio.init(project="alignkit", name=title, config=dict(recipe))
            self._log = lambda step, numbers: trackio.log({**numbers, "step": step})
            self._close = trackio.finish
        else:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))
            self._log = lambda step, numbers: [
                writer.add_scalar(key, value, step) for key, value in numbers.items()
            ]
            self._close = writer.close

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the work must go on
            self.failed = True
            log.warning("tracker %s failed and is off: %s", self.name, error)


@contextmanager
def tracked(
    config: Stage, recipe: Mapping[str, Any], folder: Path
) -> Iterator[Callable[[int, Numbers], None]]:
    """What the recipe's trackers are told through: a step and its numbers."""
    prepare(config, folder)
    trackers = [Direct(name) for name in config.track]
    for tracker in trackers:
        tracker.open(config.name, recipe, folder)

    def told(step: int, numbers: Numbers) -> None:
        for tracker in trackers:
            tracker.log(step, numbers)

    try:
        yield told
    finally:
        for tracker in trackers:
            tracker.close(folder)
