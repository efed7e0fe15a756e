"""`align show`: look inside a run from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import console, json_option, print_json
from alignkit.cli.rows import (
    number,
    print_group,
    print_question,
    print_rows,
    print_step,
    print_versus,
    table,
)
from alignkit.errors import InputError
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.records import Record
    from alignkit.report.versus import Versus

LIMIT = 20


@click.command()
@click.argument("folder", metavar="RUN|FOLDER", type=click.Path(path_type=Path))
@click.option("--stage", help="Of a pipeline; by default the last one with rollouts.")
@click.option("--step", type=int, help="The groups of this step.")
@click.option("--group", type=int, help="With --step: every response of one group.")
@click.option("--question", metavar="TEXT", help="A question across the steps.")
@click.option("--eval", "name", metavar="NAME[@STEP]", help="Samples of an eval.")
@click.option(
    "--against",
    metavar="RUN|@STEP",
    help="With --eval: fixed and broken since another run, or an earlier step.",
)
@click.option("--wrong", is_flag=True, help="Only rows that are not right.")
@click.option("--truncated", is_flag=True, help="Only rows cut at max_new_tokens.")
@click.option("--status", help="Only rows of this status.")
@click.option("--search", metavar="TEXT", help="Only rows that hold this text.")
@click.option(
    "--limit", type=click.IntRange(1), default=LIMIT, show_default=True, help="Rows."
)
@json_option
def show(
    folder: Path,
    stage: str | None,
    step: int | None,
    group: int | None,
    question: str | None,
    name: str | None,
    against: str | None,
    limit: int,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Look inside a run: its evals and findings, the groups of a step, one group with
    rewards and explanations, a question across the steps, an eval against another. A
    folder of runs lists them.
    """
    from alignkit import records
    from alignkit.records import browse

    out = console(as_json)
    if not (folder / "manifest.json").is_file():
        _list(folder, out, as_json)
        return
    record = _stage(records.read(folder), stage, folder)
    chosen = browse.Filter(text=wanted.pop("search"), **wanted)
    if group is not None and step is None:
        raise InputError("--group is a group of a step: name it with --step")
    if against is not None and name is None:
        raise InputError("--against compares an eval: name it with --eval")
    if name is not None and against is not None:
        print_versus(_compared(record, name, against), limit, out, as_json)
    elif name is not None:
        print_rows(
            browse.evaluation(record, name).samples(), chosen, limit, out, as_json
        )
    elif question is not None:
        print_question(browse.occurrences(record, question), question, out, as_json)
    elif group is not None and step is not None:
        print_group(browse.groups(record, step), group, out, as_json)
    elif chosen != browse.Filter():
        print_rows(browse.rows(record, step), chosen, limit, out, as_json)
    elif step is not None:
        print_step(browse.groups(record, step), out, as_json)
    else:
        _overview(folder, out, as_json)
    for text in record.unread:
        echo(f"not read: {text}", err=True)


def _stage(read: Sequence[Record], stage: str | None, folder: Path) -> Record:
    from alignkit.records import browse

    if not read:
        raise InputError(f"{folder} is a pipeline of which no stage has begun")
    labels = [record.label for record in read]
    if stage is not None and stage not in labels:
        raise InputError(f"{folder} has no stage {stage}; it has {', '.join(labels)}")
    if stage is not None:
        return read[labels.index(stage)]
    return next((each for each in reversed(read) if browse.steps(each)), read[-1])


def _list(root: Path, out: Console, as_json: bool) -> None:
    from alignkit.run import eval_summaries, find_runs

    runs = find_runs(root)
    if not runs:
        raise InputError(f"{root} is no run, and no run folder lies in it")
    lines = []
    for run in runs:
        evals = [
            f"{name} {number(entry['last'].get('value'))}"
            for name, entry in eval_summaries(run.folder).items()
        ]
        manifest = run.manifest
        lines.append(
            {
                "run": run.folder.name,
                "method": manifest.get("method", "pipeline"),
                "status": run.status,
                "created": str(manifest.get("created", ""))[:16],
                "evals": ", ".join(evals),
            }
        )
    if as_json:
        print_json(lines)
        return
    table(out, list(lines[0]), [list(line.values()) for line in lines])


def _overview(folder: Path, out: Console, as_json: bool) -> None:
    from alignkit import records
    from alignkit.records import browse
    from alignkit.report import findings

    read = records.read(folder)
    facts: list[dict[str, Any]] = [
        {
            "stage": record.label,
            "method": record.method,
            "status": record.manifest.get("status"),
            "steps": record.metrics[-1]["step"] if record.metrics else 0,
            "rollouts": len(record.rollouts),
            "evals": [
                {"eval": e.name, "step": e.step, "value": e.summary.get("value")}
                for e in record.evals
            ],
        }
        for record in read
    ]
    if as_json:
        print_json(facts)
        return
    names = ("stage", "method", "status", "steps", "rollouts")
    table(out, names, [[fact[name] for name in names] for fact in facts])
    lines = [
        (e["eval"], fact["stage"], e["step"], number(e["value"]))
        for fact in facts
        for e in fact["evals"]
    ]
    if lines:
        table(out, ("eval", "stage", "step", "value"), lines)
    findings.print_alarms(findings.reports_of(folder), folder, out)
    there = [step for record in read for step in browse.steps(record)]
    if there:
        say(out, f"look closer: align show {folder} --step {there[-1]}")


def _compared(record: Record, name: str, against: str) -> Versus:
    from alignkit import records
    from alignkit.records import browse
    from alignkit.report.versus import versus

    other = browse.evaluation(record, name)
    if against.startswith("@"):
        base = browse.evaluation(record, other.name + against)
    else:
        folder = Path(against)
        home = _stage(records.read(folder), None, folder)
        base = browse.evaluation(home, other.name)
    return versus(base, other)
