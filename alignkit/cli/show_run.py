"""`align show`: look inside a run from a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import console, json_option, print_json
from alignkit.errors import InputError
from alignkit.terminal import cell, say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.records import Record
    from alignkit.records.browse import Group
    from alignkit.report.versus import Versus
    from alignkit.run.rows import Row

WIDTH = 60  # characters of a text in a table
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
        _versus(record, name, against, limit, out, as_json)
    elif name is not None:
        _rows(browse.evaluation(record, name).samples(), chosen, limit, out, as_json)
    elif question is not None:
        _question(browse.occurrences(record, question), question, out, as_json)
    elif group is not None and step is not None:
        _group(browse.groups(record, step), group, out, as_json)
    elif chosen != browse.Filter():
        _rows(browse.rows(record, step), chosen, limit, out, as_json)
    elif step is not None:
        _step(browse.groups(record, step), out, as_json)
    else:
        _overview(folder, out, as_json)
    for text in record.unread:
        click.echo(f"not read: {text}", err=True)


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


def _table(
    out: Console, names: Sequence[str], lines: Sequence[Sequence[object]]
) -> None:
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*map(cell, line))
    out.print(table)


def _short(text: object, width: int = WIDTH) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "-"


def _list(root: Path, out: Console, as_json: bool) -> None:
    from alignkit.run import eval_summaries, find_runs

    runs = find_runs(root)
    if not runs:
        raise InputError(f"{root} is no run, and no run folder lies in it")
    lines = []
    for run in runs:
        evals = [
            f"{name} {_number(entry['last'].get('value'))}"
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
    _table(out, list(lines[0]), [list(line.values()) for line in lines])


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
    _table(out, names, [[fact[name] for name in names] for fact in facts])
    lines = [
        (e["eval"], fact["stage"], e["step"], _number(e["value"]))
        for fact in facts
        for e in fact["evals"]
    ]
    if lines:
        _table(out, ("eval", "stage", "step", "value"), lines)
    findings.print_alarms(findings.reports_of(folder), folder, out)
    there = [step for record in read for step in browse.steps(record)]
    if there:
        say(out, f"look closer: align show {folder} --step {there[-1]}")


def _step(groups: Sequence[Group], out: Console, as_json: bool) -> None:
    if as_json:
        print_json([_plain(group) for group in groups])
        return
    lines = [
        (
            group.number,
            f"{group.right}/{len(group.rows)}",
            " ".join(_number(row["reward"]) for row in group.rows),
            sum(row["finish_reason"] == "length" for row in group.rows),
            _short(group.rows[0]["truth"], 20),
            _short(group.question),
        )
        for group in groups
    ]
    _table(out, ("group", "right", "rewards", "cut", "truth", "question"), lines)


def _group(groups: Sequence[Group], number: int, out: Console, as_json: bool) -> None:
    one = next((group for group in groups if group.number == number), None)
    if one is None:
        last = groups[-1].number
        raise InputError(f"step {groups[0].step} has no group {number}: 0 to {last}")
    if as_json:
        print_json(_plain(one))
        return
    say(
        out,
        f"step {one.step}, group {one.number}: {one.right} of {len(one.rows)} right",
    )
    say(out, f"prompt: {one.rows[0]['prompt']}")
    say(out, f"truth: {one.rows[0]['truth']}")
    for row in one.rows:
        _print_row(row, out)


def _print_row(row: Row, out: Console) -> None:
    out.rule(cell(_place(row)))
    facts = {
        "reward": _number(row["reward"]),
        "advantage": _number(row["advantage"]),
        "status": row["status"],
        "tokens": row["tokens"],
        "ended by": row["finish_reason"],
    }
    say(out, "  ".join(f"{key} {value}" for key, value in facts.items()), "bold")
    told = ": ".join(filter(None, (row["stage"], row["explanation"])))
    if told:
        say(out, f"graded: {told}", "dim")
    say(out, str(row["response"]))


def _place(row: Row) -> str:
    if row["id"] is not None:
        return f"{row['id']} (sample {row['sample']})"
    return f"step {row['step']}, group {row['group']}, sample {row['sample']}"


def _question(groups: Sequence[Group], text: str, out: Console, as_json: bool) -> None:
    from alignkit.records import browse

    if not groups:
        raise InputError(f"no rollout asks {text!r}")
    if as_json:
        print_json([_plain(group) for group in groups])
        return
    lines = [
        (
            group.step,
            group.number,
            f"{group.right}/{len(group.rows)}",
            ", ".join(f"{_short(a, 20)} ({n})" for a, n in browse.answers(group)),
            _short(group.question),
        )
        for group in groups
    ]
    _table(out, ("step", "group", "right", "commonest answers", "question"), lines)


def _rows(rows: Any, chosen: Any, limit: int, out: Console, as_json: bool) -> None:
    matches = [row for row in rows if chosen.takes(row)]
    if as_json:
        print_json(matches[:limit])
        return
    for row in matches[:limit]:
        _print_row(row, out)
        say(out, f"truth: {row['truth']}")
    say(out, f"{min(limit, len(matches))} of {len(matches)} rows (--limit)", "bold")


def _versus(
    record: Record, name: str, against: str, limit: int, out: Console, as_json: bool
) -> None:
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
    compared = versus(base, other)
    if as_json:
        print_json(_counts(compared) | {"difference": asdict(compared.difference)})
        return
    counts = _counts(compared)
    _table(out, list(counts), [list(counts.values())])
    interval = compared.difference.interval or compared.difference.bootstrap
    within = f", 95 % {interval.low:+.3f} to {interval.high:+.3f}" if interval else ""
    say(out, f"difference {compared.difference.value:+.3f}{within} (paired)", "bold")
    sides = {"fixed": compared.fixed, "broken": compared.broken}
    for side, pairs in sides.items():
        for before, after in pairs[:limit]:
            out.rule(cell(f"{side}: {_short(browse.question_of(after))}"))
            say(out, f"truth: {after['truth']}")
            say(out, f"before: {_short(before['response'], 400)}")
            say(out, f"after: {_short(after['response'], 400)}")


def _counts(compared: Versus) -> dict[str, int]:
    return {
        "fixed": len(compared.fixed),
        "broken": len(compared.broken),
        "still wrong": len(compared.still_wrong),
        "right in both": len(compared.still_right),
        "in one only": compared.alone,
    }


def _plain(group: Group) -> Mapping[str, Any]:
    return {"step": group.step, "group": group.number, "rows": list(group.rows)}
