"""Trackers of what has no trainer of TRL's: an expert iteration, evals of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignkit.train.tables import send, tables_of
from alignkit.train.tracking import Guarded, prepare

Numbers = Mapping[str, float]


class Direct(Guarded):
    """A tracker's run."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._log: Callable[[int, Numbers], Any] = lambda step, numbers: None
        self._close: Callable[[], Any] = lambda: None

    def open(self, title: str, recipe: Mapping[str, Any], folder: Path) -> None:
        """Begin the run."""
        self.attempt(self._open, title, recipe, folder)

    def log(self, step: int, numbers: Numbers) -> None:
        """Numbers by name."""
        self.attempt(self._log, step, numbers)

    def close(self, folder: Path | None) -> None:
        """The tables of the run in a folder, and the end."""
        if folder is not None:
            self.attempt(send, self.name, tables_of(folder))
        self.attempt(self._close)

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
            self._log = lambda step, numbers: trackio.log(dict(numbers), step=step)
            self._close = trackio.finish
        else:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder / "tensorboard"))
            self._log = lambda step, numbers: [
                writer.add_scalar(key, value, step) for key, value in numbers.items()
            ]
            self._close = writer.close


@contextmanager
def tracked(
    track: Sequence[str],
    title: str,
    tag: str,
    recipe: Mapping[str, Any],
    folder: Path,
    *,
    tables: bool = True,
) -> Iterator[Callable[[int, Numbers], None]]:
    """What trackers are told through: a step and its numbers.

    Args:
        tag: of the run in wandb. tables: at the end those of the run in `folder`.
    """
    prepare(track, tag, folder)
    trackers = [Direct(name) for name in track]
    for tracker in trackers:
        tracker.open(title, recipe, folder)

    def told(step: int, numbers: Numbers) -> None:
        for tracker in trackers:
            tracker.log(step, numbers)

    try:
        yield told
    finally:
        for tracker in trackers:
            tracker.close(folder if tables else None)


def track_evals(
    track: Sequence[str], summaries: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """The results of `align eval`: one run a model, with value, interval and n of each
    eval at the model's step.
    """
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for summary in summaries:
        model = str(summary["provenance"].get("model"))
        by_model.setdefault(model, []).append(summary)
    for model, each in by_model.items():
        provenance = {summary["eval"]: summary["provenance"] for summary in each}
        with tracked(
            track, f"eval {model}", "eval", provenance, folder, tables=False
        ) as told:
            for summary in each:
                name = f"eval/{summary['eval']}/{summary['metric']}"
                ends = {f"{name}/{end}": summary.get(end) for end in ("low", "high")}
                numbers = {name: summary["value"], **ends, f"{name}/n": summary["n"]}
                known = {k: v for k, v in numbers.items() if v is not None}
                told(int(summary.get("step") or 0), known)
