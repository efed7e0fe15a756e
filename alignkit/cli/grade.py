"""`align grade`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    allow_option,
    console,
    counts,
    json_option,
    kit_option,
    load_registry,
    print_json,
    typed_rewards,
)
from alignkit.cli.grade_run import grade_run, regraded, show_steps
from alignkit.cli.label import labelled, show_errors
from alignkit.cli.sources import apart
from alignkit.errors import InputError
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.grading.stored import GradedRow

SHOWN = 10  # problems and disagreements that are printed


@click.command("grade")
@click.argument("file", metavar="FILE|RUN")
@click.option(
    "--reward",
    "specs",
    multiple=True,
    required=True,
    metavar="NAME[:OPTION=VALUE,…]",
    help="A reward with its options (repeatable).",
)
@click.option(
    "--response-field", default="response", show_default=True, metavar="FIELD"
)
@click.option(
    "--truth-field",
    metavar="FIELD",
    help="(default: truth, else ground_truth, else answer)",
)
@click.option("--prompt-field", default="prompt", show_default=True, metavar="FIELD")
@click.option(
    "--out",
    metavar="FILE",
    help="Write each row with its grades; goes on where it was interrupted.",
)
@click.option(
    "--explain",
    type=click.IntRange(1),
    metavar="LINE",
    help="Say how the row of this line was decided.",
)
@click.option(
    "--disagreements",
    is_flag=True,
    help="Every row on which the rewards disagree, of a run with its text.",
)
@click.option(
    "--label",
    type=click.IntRange(1),
    metavar="N",
    help="Draw N rows, let a person say which are right, and say by them how wrong each"
    " reward is.",
)
@kit_option
@allow_option
@json_option
def grade(
    file: str,
    specs: tuple[str, ...],
    response_field: str,
    truth_field: str | None,
    prompt_field: str,
    out: str | None,
    explain: int | None,
    disagreements: bool,
    label: int | None,
    kit: tuple[str, ...],
    as_json: bool,
) -> int:
    """Grade stored outputs: the rows of FILE (.jsonl, .json, .csv, .tsv, .parquet),
    with one or more rewards; or all rollouts of a RUN, and what these rewards would have
    made of its advantages.

    With --label the labels are kept beside FILE, in FILE.labels.jsonl, or in
    RUN/labels.jsonl; a person goes on with them, in the terminal or with an editor, by
    the same command.
    """
    if disagreements and len(specs) < 2:
        raise InputError("--disagreements: two rewards or more can disagree")
    if Path(file).is_dir():
        if explain or truth_field:
            raise InputError(
                f"{file} is a folder of a run: --explain and --truth-field are for files"
                " of rows"
            )
        return grade_run(Path(file), specs, kit, disagreements, as_json, out, label)
    from alignkit.data.files import count_lines, file_rows
    from alignkit.data.rows import read_conversations
    from alignkit.evaluate.grades import explain_row, summarize_grades
    from alignkit.graders import by_step
    from alignkit.grading import Grader, stored

    total = count_lines(Path(file))
    registry = load_registry(kit=kit)
    rewards = typed_rewards(registry, specs)
    fields = stored.Fields(response_field, truth_field, prompt_field)
    read = read_conversations(file_rows(Path(file)))
    rows = stored.gradable(read, fields, rewards.values())
    if out:
        apart(Path(out), file)
    if explain is not None:
        row = stored.row_at(file, rows, explain)
        with Grader() as grader:
            [[graded]] = stored.regrade([row], rewards, grader, fields)
        show_one(explain, explain_row(graded), as_json)
        return 0
    done, seconds = regraded(rows, rewards, fields, out, total)
    summary = summarize_grades(file, list(rewards), done, seconds)
    if all(type(each.stored.row.get("step")) is int for each in done):
        summary["steps"] = by_step(done, list(rewards), None)
    summary |= labelled(Path(file), done, rewards, fields, _line, label, as_json)
    if as_json:
        print_json(summary)
    else:
        show(summary, console(), None if disagreements else SHOWN)
        if "steps" in summary and disagreements:
            show_steps(summary["steps"], list(rewards), console())
        show_errors(summary, console())
    if summary["problems"]:
        return 2
    crashed = any("error" in entry["status"] for entry in summary["rewards"].values())
    return 1 if crashed else 0


def _line(row: GradedRow) -> str:
    return f"line {row.stored.number}"


def show(summary: Mapping[str, Any], screen: Console, most: int | None = SHOWN) -> None:
    from rich.table import Table

    heads = ("reward", "value", "95 % interval", "n", "statuses", "ms p50, p99")
    table = Table(*heads, box=None, pad_edge=False)
    for label, entry in summary["rewards"].items():
        value = entry.get("accuracy", entry.get("mean"))
        times = entry["seconds"]
        table.add_row(
            label,
            f"{value:.4f}",
            f"{entry['low']:.4f} to {entry['high']:.4f}",
            str(entry["n"]),
            counts(entry["status"]),
            f"{1000 * times['p50']:.2f}, {1000 * times['p99']:.2f}",
        )
    screen.print(table)
    for label, entry in summary["rewards"].items():
        for name, count in entry["tally"].items():
            say(screen, f"{label}: {name}: {count}")
        for text in entry["errors"]:
            say(screen, f"{label}: {text}")
        if (more := entry["status"].get("error", 0) - len(entry["errors"])) > 0:
            say(screen, f"{label}: and {more} more rows on which it crashed")
    if len(summary["rewards"]) > 1:
        differing = summary["disagreements"]
        say(screen, f"the rewards disagree on {len(differing)} rows")
        for row in differing[:most]:
            said = [f"{name} {value}" for name, value in row.items() if name != "line"]
            say(screen, f"  line {row['line']}: {', '.join(said)}")
    problems = summary["problems"]
    for problem in problems[:SHOWN]:
        say(screen, f"not graded: {problem}")
    if len(problems) > SHOWN:
        more = len(problems) - SHOWN
        say(screen, f"and {more} more rows that could not be graded")
    rate = summary["rows"] / max(summary["seconds"], 1e-9)
    say(
        screen,
        f"{summary['rows']} rows in {summary['seconds']:.2f} s ({rate:.0f}/s)",
    )


def show_one(
    line: int, decided: Mapping[str, Mapping[str, Any]], as_json: bool
) -> None:
    """How one row was decided."""
    if as_json:
        print_json({"line": line, "rewards": decided})
        return
    screen = console()
    for label, entry in decided.items():
        parts = ", ".join(f"{name} {value:g}" for name, value in entry["parts"].items())
        status = f"{entry['status']}; {parts}" if parts else entry["status"]
        say(screen, f"{label}: {entry['reward']:g} ({status})")
        stage = entry["stage"] or "the reward"
        why = entry["explanation"] or "it does not say why"
        say(screen, f"  decided by {stage}: {why}")
