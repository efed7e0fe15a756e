"""report.md: what a run was, what came of it, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit.report import findings, markdown
from alignkit.report.markdown import escaped
from alignkit.report.proofs import section
from alignkit.run import Run, atomic_write

if TYPE_CHECKING:
    from alignkit.proofs.record import Proof
    from alignkit.recipe import Recipe
    from alignkit.report.answers import Changed

NAME = "report.md"
HEADS = ("eval", "when", "result", "95 % interval", "n")
_FILES = {
    "recipe.yaml": "the recipe, resolved",
    "diff.yaml": "what it changes against its parent",
    "metrics.jsonl": "metrics by step",
    "rollouts/": "every rollout",
    "evals/": "every eval, with its samples",
    "proofs.json": "the proofs",
    "log.txt": "the log",
    "model/": "the model",
}


def write(
    run: Run,
    recipe: Recipe,
    homes: Mapping[str, Path],
    evals: Sequence[Sequence[str]],
    figure: Path | None,
    changed: Sequence[Changed],
    reports: Sequence[findings.Report],
    proofs: Mapping[str, Sequence[Proof]],
    warnings: Sequence[str],
) -> Path:
    """Write it into the run's folder.

    Args:
        homes: the folder of each stage; of a run without stages its own. evals: the
            cells of the table under `HEADS`. warnings: of the plan.
    """
    lines = [f"# {escaped(run.manifest['name'])}", ""]
    lines += markdown.table(HEADS, evals)
    lines += ["", f"![learning curve]({figure.name})"] if figure else []
    if recipe.config.description:
        said = escaped(recipe.config.description)
        lines += ["", f"The recipe's author, before it was run: {said}"]
    if warnings:
        lines += ["", "## Warnings", "", *(f"- {escaped(text)}" for text in warnings)]
    lines += findings.section(reports)
    lines += _samples(changed)
    lines += section(proofs)
    lines += _settings(recipe)
    lines += _links(run.folder, homes)
    path = run.folder / NAME
    atomic_write(path, "\n".join([*lines, ""]))
    return path


def _samples(changed: Sequence[Changed]) -> list[str]:
    if not changed:
        return []
    rows = [
        (each.question if at == 0 else "", each.truth if at == 0 else "", *answer)
        for each in changed
        for at, answer in enumerate(each.answers)
    ]
    heads = ("question", "truth", "when", "the end of the response", "reward")
    return ["", "## Answers that changed", "", *markdown.table(heads, rows)]


def _settings(recipe: Recipe) -> list[str]:
    """What was stated, by the recipe, its parents, overlays and the command line."""
    rows = [
        (name, key, value, origin)
        for name, stage in (recipe.stages or {"": recipe}).items()
        for key, value, origin in stage.settings()
        if key != "description"
    ]
    if not recipe.stages:
        table = markdown.table(("key", "value", "stated at"), [r[1:] for r in rows])
    else:
        table = markdown.table(("stage", "key", "value", "stated at"), rows)
    return ["", "## Settings that were stated", "", *table]


def _links(folder: Path, homes: Mapping[str, Path]) -> Iterator[str]:
    yield from ("", "## Files", "")
    for name, home in {"": folder, **homes}.items():
        if name and home == folder:
            continue
        for file, what in _FILES.items():
            if (home / file).exists():
                link = f"{(home / file).relative_to(folder)}"
                of = f"{escaped(name)}: " if name else ""
                yield f"- {of}[{what}]({link})"
