"""What `align run` shows at its end: what changed, a few answers before and after, a
learning curve, what next.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.recipe.schema import Pipeline
from alignkit.report import findings, markdown
from alignkit.report.figures import learning_curve
from alignkit.report.markdown import escaped
from alignkit.report.proofs import line, proofs_of, section
from alignkit.run import Run, atomic_write, read_rows
from alignkit.run.rows import Row
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.recipe import Config

SHOWN_ANSWERS = 3
REPORT = "report.md"
HEADS = ("eval", "when", "result", "95 % interval", "n")


def print_run(
    run: Run, config: Config, result: Mapping[str, Any], console: Console
) -> None:
    """Print the table of evals and some answers, and write report.md and
    learning_curve.png into the run folder.

    `result` holds the first and last summary of each eval; of a pipeline, by stage.
    """
    from rich.table import Table

    method = config.method
    stages, model = {run.manifest["name"]: result}, run.folder
    if method == "pipeline":
        stages, model = dict(result), run.folder / "stages" / list(result)[-1]
    rows = _rows(stages)
    if rows:
        table = Table(*HEADS, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for question, answers in _answers(run.folder, stages):
        say(console, question)
        for when, text in answers:
            say(console, f"  {when}: {text}")
    proofs, reports = proofs_of(run.folder), findings.reports_of(run.folder)
    logged = _logged(run.folder, stages, method)
    figure = learning_curve(logged, run.folder / "learning_curve")
    lines = [f"# {escaped(run.manifest['name'])}", "", *markdown.table(HEADS, rows)]
    atomic_write(
        run.folder / REPORT,
        "\n".join(
            [
                *lines,
                "",
                *([f"![learning curve]({figure.name})"] if figure else []),
                *findings.section(reports),
                *section(proofs),
            ]
        ),
    )
    if config.description:
        say(console, config.description.strip())
    findings.print_alarms(reports, run.folder, console)
    where = [told] if (told := line(proofs)) else []
    where.append(f"report: {run.folder / REPORT}")
    if figure is not None:
        where.append(f"learning curve: {figure}")
    say(console, "\n".join(where))
    for command in _commands(config, model):
        say(console, f"next: {command}")


def _commands(config: Config, model: Path) -> list[str]:
    """`align eval …` of what the recipe measures, as much of it and by the same judges;
    of a pipeline, what its last stage does.
    """
    if isinstance(config, Pipeline):
        return _commands(list(config.stages.values())[-1], model)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, entry in config.evals.items():
        stated = {"limit": entry.limit, "samples": entry.samples, "judge": entry.judge}
        stated |= {"judge-tokens": entry.judge_tokens}
        flags = [
            text
            for flag, value in stated.items()
            if value is not None and (flag, value) != ("samples", 1)
            for text in (f"--{flag}", str(value))
        ]
        groups.setdefault(tuple(flags), []).append(name)
    groups = groups or {(): ["NAME"]}
    words = [
        ["align", "eval", *names, "--model", str(model), *flags]
        for flags, names in groups.items()
    ]
    return [shlex.join(command) for command in words]


def _rows(stages: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for stage, evals in stages.items():
        for name, entry in evals.items():
            by_step = {entry[key]["step"]: entry[key] for key in ("first", "last")}
            for step, summary in by_step.items():
                when = f"after {stage} (step {step})" if step else f"before {stage}"
                value, low, high = (summary[key] for key in ("value", "low", "high"))
                text = ("-", "-")
                if value is not None:
                    text = (f"{value:.3f}", f"{low:.3f} to {high:.3f}")
                metric = f"{name} {summary['metric']}"
                rows.append((metric, when, *text, str(summary["n"])))
    return rows


def _answers(
    folder: Path, stages: Mapping[str, Any]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """A few questions whose answer changed, with the answer at every eval: (question,
    [(when, answer)]).
    """
    homes = {name: folder / "stages" / name for name in stages}
    if not all(home.is_dir() for home in homes.values()):
        homes = dict.fromkeys(stages, folder)
    series: dict[str, list[tuple[str, dict[str, Row]]]] = {}
    for stage, home in homes.items():
        for path in sorted(home.glob("evals/*/samples.jsonl"), key=_step):
            step = _step(path)
            when = f"{stage}, step {step}" if step else f"before {stage}"
            rows = {str(row["id"]): row for row in read_rows(path)}
            series.setdefault(path.parent.name.rpartition("@")[0], []).append(
                (when, rows)
            )
    changed: list[tuple[str, list[tuple[str, str]]]] = []
    for evals in series.values():
        for name, row in evals[-1][1].items():
            before = evals[0][1].get(name)
            if (
                before is not None
                and before["response"] != row["response"]
                and len(changed) < SHOWN_ANSWERS
            ):
                chosen = [evals[0], *evals[1:-1][-1:], evals[-1]]
                answers = [
                    (when, _line(rows[name]["response"]))
                    for when, rows in chosen
                    if name in rows
                ]
                changed.append((_line(row["metadata"].get("question", name)), answers))
    return changed


def _step(path: Path) -> int:
    return int(path.parent.name.rpartition("@")[2])


def _line(text: object, limit: int = 100) -> str:
    # control characters of a model's output stay visible
    shown = json.dumps(str(text), ensure_ascii=False)[1:-1]
    return shown if len(shown) <= limit else shown[:limit] + "…"


def _logged(folder: Path, stages: Iterable[str], method: str) -> dict[str, Any]:
    """The rows of metrics.jsonl of each stage that began."""
    homes = {
        stage: folder / "stages" / stage if method == "pipeline" else folder
        for stage in stages
    }
    return {
        stage: Run.open(home).metrics()
        for stage, home in homes.items()
        if (home / "manifest.json").is_file()
    }
