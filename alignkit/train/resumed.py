"""What a resumed run knows of itself before it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignkit import provenance
from alignkit.errors import InputError
from alignkit.recipe.rules import setting
from alignkit.run import checkpoints
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.recipe import Recipe
    from alignkit.run import Run


def require_optimizer(recipe: Recipe, folder: Run) -> None:
    """Refuse to go on from weights alone.

    Raises:
        InputError: the run's checkpoints hold no optimizer.
    """
    if not setting(recipe.stage, "save_only_model"):
        return
    if checkpoints := sorted((folder.folder / "checkpoints").glob("checkpoint-*")):
        raise InputError(
            f"{checkpoints[-1]} holds the weights only (train.save_only_model), so going"
            " on would start with a fresh optimizer and be another run; start anew:"
            f" align run {folder.folder / 'recipe.yaml'}"
        )


def newest_checkpoint(run: Run, console: Console) -> Path | None:
    """The newest whole checkpoint; None goes on from the beginning. Says which were
    passed over.
    """
    old = provenance.is_old(run.manifest)
    newest, passed = checkpoints.newest(run.folder / "checkpoints", marked=not old)
    if passed and run.writes:
        why = "; ".join(f"{name}: {fault}" for name, fault in passed.items())
        on = "the beginning" if newest is None else newest.name
        say(console, f"not whole, passed over: {why}; going on from {on}")
    return newest


def mean_loss(run: Run, of_session: float) -> float:
    """The loss over all optimizer steps of a run, from what was logged of them; the
    trainer knows of those since it was started.
    """
    total, before = 0.0, 0
    for row in run.metrics():
        if "train/loss" in row:
            total += row["train/loss"] * (row["step"] - before)
            before = row["step"]
    return total / before if before else of_session


def seconds_logged(run: Run) -> float:
    """The wall clock of the training that the rows of metrics.jsonl tell of."""
    rows = run.metrics()
    # the eval before training, if there was one
    begun = [row for row in rows if row["step"] == 0][-1:] or rows[:1]
    return float(rows[-1]["seconds"] - begun[0]["seconds"]) if rows else 0.0


def tokens_spent(run: Run) -> int:
    """The tokens that the rows of metrics.jsonl have counted."""
    return max((int(row.get("tokens", 0)) for row in run.metrics()), default=0)
