"""`align grade RUN`: a whole run's rollouts under other graders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.cli.common import console, load_registry, print_json, progress
from alignkit.errors import InputError
from alignkit.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

SHOWN = 10  # disagreements that are printed without --disagreements


def grade_run(
    folder: Path, specs: Sequence[str], kit: Sequence[str], whole: bool, as_json: bool
) -> int:
    """Grade the rollouts of the run in `folder` and print; `whole`: every disagreement."""
    from alignkit import graders, records
    from alignkit.grading import Grader
    from alignkit.grading.bound import bind_specs
    from alignkit.records import browse

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
    graded = []
    with Grader() as grader, progress("grade") as report:
        for batch in graders.graded_run(record, rewards, grader):
            graded += batch
            report("rollouts", len(graded), len(record.rollouts))
    found = graders.summary(record, graded, list(rewards), how, why_not)
    if as_json:
        print_json(found)
    else:
        show(found, list(rewards), whole, console())
    return 2 if found["problems"] else 0


def show(
    found: Mapping[str, Any], labels: Sequence[str], whole: bool, screen: Console
) -> None:
    from rich.table import Table

    heads = ("step", "rollouts", "differ", "reward", "mean", "turned", "change")
    table = Table(*heads, box=None, pad_edge=False)
    for step in found["steps"]:
        place = [str(step[key]) for key in ("step", "n", "differ")]
        for label in labels:
            entry = step[label]
            turned = str(entry.get("turned", "-"))
            change = f"{entry['change']:.3f}" if "change" in entry else "-"
            table.add_row(*place, label, f"{entry['mean']:.3f}", turned, change)
            place = ["", "", ""]
    screen.print(table)
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
