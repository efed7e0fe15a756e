"""`align grade RUN`: a whole run's rollouts under other graders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import console, hold, load_registry, print_json, progress
from alignkit.cli.label import labelled, show_errors
from alignkit.errors import InputError, listing
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from alignkit.grading.bound import BoundReward
    from alignkit.grading.stored import Fields, GradedRow, StoredRow

SHOWN = 10  # disagreements that are printed without --disagreements


def grade_run(
    folder: Path,
    specs: Sequence[str],
    kit: Sequence[str],
    whole: bool,
    as_json: bool,
    out: str | None,
    label: int | None,
) -> int:
    """Grade the rollouts of the run in `folder` and print; `whole`: every disagreement."""
    from alignkit import graders, records
    from alignkit.grading.bound import bind_specs
    from alignkit.grading.stored import Fields
    from alignkit.records import browse

    if (folder / "sweep.json").is_file():
        runs = [str(run) for run in sorted(folder.glob("runs/*")) if run.is_dir()]
        raise InputError(
            f"{folder} is a sweep; name one of its runs: {listing(runs, 5) or 'none yet'}"
        )
    registry = load_registry(kit=kit)
    rewards = bind_specs(registry, specs)
    there = [each for each in records.read(folder) if browse.steps(each)]
    if not there:
        raise InputError(f"{folder} holds no rollouts to grade")
    record = there[-1]
    how, why_not = None, ""
    try:
        how = graders.Recomputed.of(record, registry)
    except InputError as error:
        why_not = str(error)
    rows = graders.rollouts(record, rewards)
    graded, _ = regraded(rows, rewards, Fields(), out)
    found = graders.summary(record, graded, list(rewards), how, why_not)
    beside = folder, graded, rewards, Fields(), graders.place
    found |= labelled(*beside, label, as_json)
    if as_json:
        print_json(found)
    else:
        show(found, list(rewards), whole, console())
        show_errors(found, console())
    return 2 if found["problems"] else 0


def regraded(
    rows: Iterator[StoredRow],
    rewards: Mapping[str, BoundReward],
    fields: Fields,
    out: str | None,
    total: int = 0,
) -> tuple[list[GradedRow], float]:
    """The rows with their grades, and the seconds it took; what `out` holds of them
    already is taken from there, and the others are appended to it.
    """
    from alignkit.grading import Grader, stored
    from alignkit.run import stopping

    if out:
        hold(Path(out))
    done = stored.graded_before(Path(out), rows, list(rewards)) if out else []
    if done:
        echo(f"{len(done)} rows were graded before", err=True)
    started = time.perf_counter()
    try:
        with Grader() as grader, progress("grade") as report:
            for batch in stored.regrade(rows, rewards, grader, fields):
                if out:
                    stored.append_graded(Path(out), batch)
                done += batch
                report("rows", len(done), total or len(done))
    except KeyboardInterrupt:
        hint = "with --out FILE it could go on from here"
        if out:
            hint = "run the same command again to go on"
        echo(f"interrupted after {len(done)} rows; {hint}", err=True)
        raise click.exceptions.Exit(stopping.exit_code()) from None
    return done, time.perf_counter() - started


def show_steps(
    steps: Sequence[Mapping[str, Any]], labels: Sequence[str], screen: Console
) -> None:
    """A table of what the graders say by step."""
    from rich.table import Table

    heads = ("step", "rollouts", "differ", "reward", "mean", "turned", "change")
    table = Table(*heads, box=None, pad_edge=False)
    for step in steps:
        place = [str(step[key]) for key in ("step", "n", "differ")]
        for label in labels:
            entry = step[label]
            turned = str(entry.get("turned", "-"))
            change = f"{entry['change']:.3f}" if "change" in entry else "-"
            table.add_row(*place, label, f"{entry['mean']:.3f}", turned, change)
            place = ["", "", ""]
    screen.print(table)


def show(
    found: Mapping[str, Any], labels: Sequence[str], whole: bool, screen: Console
) -> None:
    show_steps(found["steps"], labels, screen)
    say(screen, f"the graders disagree on {found['differ']} of {found['rollouts']}")
    if found["no_advantages"]:
        say(screen, f"no advantages: {found['no_advantages']}")
    elif found["check"] is not None:
        say(
            screen,
            "turned: rollouts pushed another way than in training; change: the mean"
            " change of an advantage. From the stored rewards the stored advantages"
            f" come again to within {found['check']:.1e}",
        )
    shown = found["disagreements"]
    for row in shown if whole else shown[:SHOWN]:
        said = [f"{label}: {row[label]}" for label in labels]
        where = f"step {row['step']}, group {row['group']}, sample {row['sample']}"
        say(screen, f"{where}: truth {row['truth']!r:.60}; {'; '.join(said)}")
        if whole:
            say(screen, f"  {row['response']!r}")
    if not whole and len(shown) > SHOWN:
        say(screen, f"and {len(shown) - SHOWN} more (--disagreements: all, with texts)")
    for problem in found["problems"][:SHOWN]:
        say(screen, f"not graded: {problem}")
