"""Compute steps of a run again, from the checkpoint before them, and compare.

The trainer is made as the run made it, in a folder that is thrown away; nothing is
written into the run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, listing
from alignkit.proofs.record import Proofs
from alignkit.proofs.replay import (
    Account,
    Difference,
    compare_metrics,
    compare_rollouts,
)
from alignkit.recipe.schema import Stepped, Trained, walk
from alignkit.run import Run, checkpoints, read_rows
from alignkit.train.proving import prove_start
from alignkit.train.start import create_run
from alignkit.train.training import prepared
from alignkit.train.watchers import Watchers
from alignkit.types import RunInfo

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe


def replay(
    recipe: Recipe, registry: Registry, run: Run, step: int | None, console: Console
) -> Account:
    """Compute a step again, None the last one that was logged, with those between it
    and the checkpoint before it.

    Raises:
        InputError: the run has no such step, or is of several processes.
    """
    config = recipe.stage
    if not isinstance(config, Stepped):
        raise InputError(
            f"{run.folder} has no optimizer steps of its own: it is a run of"
            f" {config.method}; name one of the runs inside it"
        )
    if config.launch.processes > 1:
        raise InputError(
            f"{run.folder} was trained by {config.launch.processes} processes; only"
            " runs of one process can be replayed"
        )
    logged = {row["step"]: row for row in run.metrics() if "train/loss" in row}
    if step is None and logged:
        step = max(logged)
    if step is None or step not in logged:
        known = listing([str(number) for number in sorted(logged)], 12)
        raise InputError(
            f"{run.folder} logged no step {step}; it logged {known or 'none'}"
        )
    checkpoint = _checkpoint(run.folder, step)
    begin = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    with tempfile.TemporaryDirectory() as home:
        anew = _again(recipe, registry, checkpoint, step, Path(home), console)
        again = {row["step"]: row for row in anew.run.metrics()}
        account = Account([n for n in sorted(logged) if begin < n <= step])
        account.differences = []
        for number in account.steps:
            if number in again:
                count, gaps = compare_metrics(number, logged[number], again[number])
                account.numbers += count
                account.differences += gaps
            else:
                gap = Difference(f"step {number}", "step", "logged", "not reached")
                account.differences.append(gap)
        _compare_rows(account, run.folder, anew.run.folder)
        account.weights = anew.weights
        account.differences += anew.gaps
    return account


def _checkpoint(folder: Path, step: int) -> Path | None:
    """The newest one before a step; None begins with the model that the run began with."""
    found = checkpoints.by_step(folder / "checkpoints").items()
    # the marker may be missing: those of 0.1 have none
    whole = (
        p for n, p in found if n < step and not checkpoints.fault_of(p, marked=False)
    )
    return next(whole, None)


class _Until(TrainerCallback):
    """Ends training with a step, and holds its weights beside those of a checkpoint."""

    def __init__(self, run: Run, step: int, saved: Path) -> None:
        self.run = run
        self.step = step
        self.saved = saved
        self.weights = 0
        self.gaps: list[Difference] = []

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any, **_: Any
    ) -> None:
        """No checkpoint is written."""
        control.should_save = False
        if state.global_step >= self.step:
            control.should_training_stop = True
            self._compare(model)

    def _compare(self, model: Any) -> None:
        from safetensors import safe_open

        live = model.state_dict()
        for file in sorted(self.saved.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (it is no map)
                    known = _named(name, live)
                    if known is None:
                        continue
                    self.weights += 1
                    gap = (tensors.get_tensor(name) - live[known].cpu()).abs().max()
                    if float(gap):
                        place = f"after step {self.step}, {self.saved.name}"
                        self.gaps.append(Difference(place, name, 0.0, float(gap)))


def _named(name: str, live: Any) -> str | None:
    """The name of a saved tensor in the live model; an adapter's is in it."""
    adapted = name.replace(".weight", ".default.weight")
    return next((known for known in (name, adapted) if known in live), None)


def _aside(config: Trained) -> dict[str, Any]:
    """What happens beside the steps, as if nothing were stated of it."""
    return {
        path[0]: declared.field.get_default(call_default_factory=True)
        for path, declared in walk.declarations().items()
        if len(path) == 1
        and path[0] in type(config).model_fields
        and not declared.key.trains
        and not declared.field.is_required()
        and path[0] != "waive"
    }


def _again(
    recipe: Recipe,
    registry: Registry,
    checkpoint: Path | None,
    step: int,
    home: Path,
    console: Console,
) -> _Until:
    """Train up to a step in a folder of its own."""
    config = recipe.stage.model_copy(update=_aside(recipe.stage))
    bare = replace(recipe, config=config)
    datasets = Datasets(registry)
    run = create_run(recipe, registry, datasets, folder=home / "replay")
    watchers = Watchers(RunInfo(config.name, run.folder, recipe.resolved), [])
    folder = recipe.path.parent / "checkpoints" / f"checkpoint-{step}"
    try:
        with prepared(bare, registry, datasets, console, run, watchers) as training:
            until = _Until(run, step, folder)
            training.trainer.add_callback(until)
            prove_start(training.subject, Proofs(run, config.method, config.waive))
            training.going_on.checkpoint = checkpoint
            before = None if checkpoint is None else str(checkpoint)
            training.trainer.train(resume_from_checkpoint=before)
    finally:
        run.release()
    return until


def _compare_rows(account: Account, logged: Path, replayed: Path) -> None:
    """The rollouts of the steps that were generated again."""
    assert account.differences is not None
    for number in account.steps:
        name = f"step-{number:06d}.jsonl"
        old, new = (folder / "rollouts" / name for folder in (logged, replayed))
        if old.is_file() and new.is_file():
            rows = list(read_rows(old))
            account.rollouts += len(rows)
            again: Sequence[Any] = list(read_rows(new))
            account.differences += compare_rollouts(number, rows, again)
        elif old.is_file() is not new.is_file():
            gap = Difference(f"step {number}", "rollouts", old.is_file(), new.is_file())
            account.differences.append(gap)
