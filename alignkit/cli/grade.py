"""`align grade`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    console,
    hold,
    json_option,
    kit_option,
    load_registry,
    print_json,
)
from alignkit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.grading import BoundReward
    from alignkit.grading.stored import GradedRow
    from alignkit.plugins import Registry

SHOWN = 10  # problems and disagreements that are printed


@click.command("grade")
@click.argument("file", metavar="FILE")
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
    "--truth-field", metavar="FIELD", help="(default: ground_truth, else truth)"
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
@kit_option
@json_option
def grade(
    file: str,
    specs: tuple[str, ...],
    response_field: str,
    truth_field: str | None,
    prompt_field: str,
    out: str | None,
    explain: int | None,
    kit: tuple[str, ...],
    as_json: bool,
) -> int:
    """Grade stored outputs: the JSONL rows of FILE, with one or more rewards."""
    from alignkit.grading import Grader
    from alignkit.grading.stored import (
        Fields,
        append_graded,
        count_lines,
        graded_before,
        read_rows,
        regrade,
    )

    total = count_lines(Path(file))
    rewards = parse_rewards(load_registry(kit=kit), specs)
    fields = Fields(response_field, truth_field, prompt_field)
    rows = read_rows(Path(file), fields, rewards.values())
    screen = console(as_json)
    if out and Path(out).resolve() == Path(file).resolve():
        raise InputError(f"--out {out} is the file that is graded; choose another")
    if out and explain is None:
        hold(Path(out))
    with Grader() as grader:
        if explain is not None:
            line = [row for row in rows if row.number == explain]
            if not line or line[0].problem:
                raise InputError(
                    line[0].problem if line else f"{file} has no row at line {explain}"
                )
            [[graded]] = regrade(line, rewards, grader, fields)
            show_one(graded, as_json)
            return 0
        done = graded_before(Path(out), rows, list(rewards)) if out else []
        if done:
            click.echo(f"{len(done)} rows were graded before", err=True)
        started = time.perf_counter()
        try:
            with _progress(screen) as report:
                for batch in regrade(rows, rewards, grader, fields):
                    if out:
                        append_graded(Path(out), batch)
                    done += batch
                    report("rows", len(done), total)
        except KeyboardInterrupt:
            hint = (
                "run the same command again to go on"
                if out
                else "with --out FILE it could go on from here"
            )
            click.echo(f"interrupted after {len(done)} rows; {hint}", err=True)
            return 130
        seconds = time.perf_counter() - started
    if not done:
        raise InputError(f"{file} is empty: it holds no rows")
    problems = [row.stored.problem for row in done if row.stored.problem]
    if len(problems) == len(done):
        raise InputError(
            f"none of the {len(done)} rows can be graded:", *problems[:SHOWN]
        )
    summary: dict[str, Any] = {
        "file": file,
        "rows": len(done),
        "seconds": round(seconds, 3),
        "problems": problems,
    }
    summary["rewards"] = {label: summarize(label, done) for label in rewards}
    summary["disagreements"] = disagreements(done) if len(rewards) > 1 else []
    print_json(summary) if as_json else show(summary, screen)
    return 2 if problems else 0


def parse_rewards(registry: Registry, specs: Sequence[str]) -> dict[str, BoundReward]:
    """{spec: reward} of `name` or `name:option=value,option=value`; values are YAML.

    Raises:
        InputError: every unknown reward, unknown option and wrong value at once.
    """
    from ruamel.yaml import YAML, YAMLError

    from alignkit.grading import bind_plugin
    from alignkit.plugins import check_options

    found: dict[str, BoundReward] = {}
    problems: list[str] = []
    for spec in specs:
        name, _, text = spec.partition(":")
        if text and "=" not in text:
            problems.append(f"--reward {spec}: expected name:option=value,option=value")
            continue
        try:
            plugin = registry.get("reward", name)
            options = YAML(typ="safe", pure=True).load(
                "{" + text.replace("=", ": ") + "}"
            )
        except InputError as error:
            problems += error.problems
            continue
        except YAMLError:
            problems.append(f"--reward {spec}: expected name:option=value,option=value")
            continue
        wrong = [text for _, text in check_options(plugin, options)]
        problems += wrong
        if not wrong:
            found[spec] = bind_plugin(plugin, options)
    if problems:
        raise InputError(*problems)
    return found


def summarize(label: str, rows: Sequence[GradedRow]) -> dict[str, Any]:
    """The mean reward with its 95 % interval (over questions, where the rows name
    these), counts and times.
    """
    from alignkit.evaluate.summary import interval, tally

    graded = [(row.stored, row.grades[label]) for row in rows if row.grades]
    scores = [result.score for _, result in graded]
    questions = [
        str(stored.row.get("prompt", stored.row.get("question", stored.number)))
        for stored, _ in graded
    ]
    mean, low, high = interval([score.reward for score in scores], questions)
    times = sorted(result.seconds for _, result in graded)
    return {
        "n": len(scores),
        "accuracy" if all(score.reward in (0, 1) for score in scores) else "mean": mean,
        "low": low,
        "high": high,
        "status": dict(Counter(str(score.status) for score in scores).most_common()),
        "tally": tally([{"parts": score.parts} for score in scores]),
        "stages": dict(Counter(score.stage for score in scores).most_common()),
        "seconds": {
            "sum": round(sum(times), 4),
            "p50": times[len(times) // 2],
            "p99": times[int(0.99 * (len(times) - 1))],
            "max": times[-1],
        },
        "errors": _errors(rows, label),
    }


def _errors(rows: Sequence[GradedRow], label: str) -> list[str]:
    crashed = [
        row for row in rows if row.grades and row.grades[label].score.status == "error"
    ]
    return [
        f"line {r.stored.number}: {r.grades[label].score.explanation.strip()[-300:]}"
        for r in crashed[:SHOWN]
    ]


def disagreements(rows: Sequence[GradedRow]) -> list[dict[str, Any]]:
    """The rows whose rewards are not all the same, with what each reward said."""
    return [
        {
            "line": row.stored.number,
            **{
                label: f"{score.reward:g} ({score.stage or score.status})"
                for label, (score, _) in row.grades.items()
            },
        }
        for row in rows
        if len({result.score.reward for result in row.grades.values()}) > 1
    ]


def show(summary: Mapping[str, Any], screen: Console) -> None:
    from rich.table import Table

    table = Table(
        "reward",
        "value",
        "95 % interval",
        "n",
        "statuses",
        "ms p50, p99",
        box=None,
        pad_edge=False,
    )
    for label, found in summary["rewards"].items():
        value = found.get("accuracy", found.get("mean"))
        statuses = ", ".join(
            f"{count} {status}" for status, count in found["status"].items()
        )
        times = (
            f"{1000 * found['seconds']['p50']:.2f},"
            f" {1000 * found['seconds']['p99']:.2f}"
        )
        between = f"{found['low']:.4f} to {found['high']:.4f}"
        table.add_row(label, f"{value:.4f}", between, str(found["n"]), statuses, times)
    screen.print(table)
    for label, found in summary["rewards"].items():
        for name, count in found["tally"].items():
            screen.print(f"{label}: {name}: {count}", highlight=False)
        for text in found["errors"]:
            screen.print(f"{label}: {text}", highlight=False, markup=False)
    if len(summary["rewards"]) > 1:
        differing = summary["disagreements"]
        screen.print(f"the rewards disagree on {len(differing)} rows", highlight=False)
        for row in differing[:SHOWN]:
            said = ", ".join(
                f"{key} {value}" for key, value in row.items() if key != "line"
            )
            screen.print(f"  line {row['line']}: {said}", highlight=False, markup=False)
    for problem in summary["problems"][:SHOWN]:
        screen.print(f"not graded: {problem}", highlight=False, markup=False)
    if len(summary["problems"]) > SHOWN:
        screen.print(
            f"and {len(summary['problems']) - SHOWN} more rows that could not be"
            " graded",
            highlight=False,
        )
    rate = summary["rows"] / max(summary["seconds"], 1e-9)
    screen.print(
        f"{summary['rows']} rows in {summary['seconds']:.2f} s ({rate:.0f}/s)",
        highlight=False,
    )


def show_one(row: GradedRow, as_json: bool) -> None:
    """How one row was decided."""
    found: dict[str, dict[str, Any]] = {
        label: {
            "reward": score.reward,
            "status": score.status,
            "parts": dict(score.parts),
            "stage": score.stage,
            "explanation": score.explanation,
            "seconds": seconds,
        }
        for label, (score, seconds) in row.grades.items()
    }
    if as_json:
        print_json({"line": row.stored.number, "rewards": found})
        return
    for label, entry in found.items():
        parts = ", ".join(f"{name} {value:g}" for name, value in entry["parts"].items())
        click.echo(
            f"{label}: {entry['reward']:g}"
            f" ({entry['status']}{'; ' + parts if parts else ''})"
        )
        click.echo(
            f"  decided by {entry['stage'] or 'the reward'}:"
            f" {entry['explanation'] or 'it does not say why'}"
        )


def _progress(screen: Console) -> Any:
    from alignkit.cli.eval import progress

    return progress(screen, "grade")
