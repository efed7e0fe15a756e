"""The kit's callbacks of a run: told what happens, by the process that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.types import Callback, RunInfo

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.run import Run


@dataclass(frozen=True)
class Watchers:
    """The callbacks that a recipe lists, and the run that they watch."""

    info: RunInfo
    callbacks: Sequence[Callback]

    @classmethod
    def of(cls, recipe: Recipe, registry: Registry, run: Run) -> Watchers:
        """Those of a recipe; further training processes of a run have none."""
        names = recipe.config.callbacks if run.writes else []
        return cls(
            RunInfo(recipe.config.name, run.folder, recipe.resolved),
            [registry.get("callback", name).value for name in names],
        )

    def run_started(self) -> None:
        """Model, data and trainer are there; nothing is evaluated or trained yet."""
        for callback in self.callbacks:
            if callback.run_started is not None:
                callback.run_started(self.info)

    def step_logged(self, step: int, row: Mapping[str, float]) -> None:
        """A row of metrics.jsonl was written."""
        for callback in self.callbacks:
            if callback.step_logged is not None:
                callback.step_logged(self.info, step, row)

    def eval_finished(self, name: str, summary: Mapping[str, Any]) -> None:
        """An eval of the run has its summary."""
        for callback in self.callbacks:
            if callback.eval_finished is not None:
                callback.eval_finished(self.info, name, summary)

    def run_finished(self, status: str) -> None:
        """The manifest holds the status: `done`, `failed`, `interrupted` or
        `stalled`."""
        for callback in self.callbacks:
            if callback.run_finished is not None:
                callback.run_finished(self.info, status)
