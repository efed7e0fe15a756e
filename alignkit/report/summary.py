"""What a finished run says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.kits import Kit, command
from alignkit.recipe.schema import Pipeline
from alignkit.report import document, findings
from alignkit.report.answers import changed
from alignkit.report.learning import learning_curve, stages_of
from alignkit.report.proofs import line, proofs_of
from alignkit.run import Run
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.recipe import Config, Recipe


def print_run(
    run: Run,
    recipe: Recipe,
    result: Mapping[str, Any],
    kits: Sequence[Kit],
    warnings: Sequence[str],
    console: Console,
) -> None:
    """Print the table of evals and some answers, and write report.md and
    learning_curve.png into the run folder.

    `result` holds the first and last summary of each eval; of a pipeline, by stage.
    """
    from rich.table import Table

    homes = {run.manifest["name"]: run.folder}
    stages, model = {run.manifest["name"]: result}, run.folder
    if recipe.stages:
        homes = {name: run.folder / "stages" / name for name in recipe.stages}
        stages, model = dict(result), homes[list(homes)[-1]]
    rows = _rows(stages)
    if rows:
        table = Table(*document.HEADS, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    answers = list(changed(homes))
    for each in answers:
        say(console, f"{each.question}   truth: {each.truth}")
        for when, text, reward in each.answers:
            say(
                console, f"  {when}: {text}" + (f"   reward {reward}" if reward else "")
            )
    proofs, reports = proofs_of(run.folder), findings.reports_of(run.folder)
    figure = learning_curve(stages_of(homes), run.folder / "learning_curve")
    report = document.write(
        run, recipe, homes, rows, figure, answers, reports, proofs, warnings
    )
    if recipe.config.description:
        say(console, "the recipe's author, before it was run:", "dim")
        say(console, recipe.config.description.strip(), "dim")
    findings.print_alarms(reports, run.folder, console)
    where = [told] if (told := line(proofs)) else []
    where.append(f"report: {report}")
    if figure is not None:
        where.append(f"learning curve: {figure}")
    say(console, "\n".join(where))
    for words in _commands(recipe.config, model):
        say(console, f"next: {command(kits, *words)}")


def _commands(config: Config, model: Path) -> list[list[str]]:
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
    return [
        ["eval", *names, "--model", str(model), *flags]
        for flags, names in groups.items()
    ]


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
