"""`align compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignkit.cli.common import console, json_option
from alignkit.terminal import echo

if TYPE_CHECKING:
    from alignkit.report.collect import Collection
    from alignkit.report.comparison import Comparison

FORMATS = ("table", "markdown", "csv", "json", "latex")


@click.command()
@click.argument(
    "runs",
    metavar="RUN|SWEEP...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Such as eval/math/accuracy (repeatable).",
)
@click.option(
    "--base",
    metavar="VARIANT",
    help="What the others are compared with: a row's name or a run folder.",
)
@click.option(
    "--allow-missing", is_flag=True, help="Leave out unfinished and damaged runs."
)
@click.option(
    "--force",
    is_flag=True,
    help="Compare what was measured differently; the table is marked.",
)
@click.option(
    "--format", "style", type=click.Choice(FORMATS), default="table", show_default=True
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write all tables and the figures into this folder.",
)
@json_option
def compare(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    base: str | None,
    allow_missing: bool,
    force: bool,
    style: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare finished runs, or a sweep: one row per variant, tested against the base.

    Runs of one recipe that differ in nothing but the seed are one row. A sweep's tables
    and figures are written into its folder (`compare/`), those of single runs where
    --out says.
    """
    style = "json" if as_json else style
    show(
        runs,
        metrics,
        base=base,
        allow_missing=allow_missing,
        force=force,
        style=style,
        out=out,
    )


def show(
    runs: Sequence[Path],
    metrics: Sequence[str] = (),
    *,
    base: str | None = None,
    allow_missing: bool = False,
    force: bool = False,
    style: str = "table",
    out: Path | None = None,
) -> None:
    """Compare, write tables and figures where there is a place for them, and print."""
    from alignkit.report.collect import collect
    from alignkit.report.comparison import compare as compare_variants

    collection = collect(runs, base=base, allow_missing=allow_missing)
    found = compare_variants(collection, metrics, force=force)
    if out is None and len(runs) == 1 and (runs[0] / "sweep.json").is_file():
        out = runs[0] / "compare"
    written = _write(collection, found, out) if out else []
    _print(found, style)
    if written:
        echo(f"{len(written)} tables and figures in {out}", err=True)


def _write(collection: Collection, found: Comparison, out: Path) -> list[Path]:
    from alignkit.report import figures, tables
    from alignkit.run import atomic_write

    texts = {
        "compare.md": tables.markdown(found),
        "compare.csv": tables.as_csv(found),
        "compare.json": tables.as_json(found),
        "compare.tex": tables.latex(found),
    }
    for name, text in texts.items():
        atomic_write(out / name, text)
    return [*(out / name for name in texts), *figures.write_all(collection, found, out)]


def _print(found: Comparison, style: str) -> None:
    from alignkit.report import tables
    from alignkit.report.screen import shown

    screen = console()
    if style == "table" and screen.is_terminal:
        for part in shown(found, screen.width):
            screen.print(part)
        for note in tables.notes(found):
            forced = note.startswith("FORCED")
            screen.print(f"· {note}", style="bold red" if forced else "dim")
        return
    # Where the output is no terminal, the Markdown table is the plain one.
    write = {"csv": tables.as_csv, "json": tables.as_json, "latex": tables.latex}.get(
        style, tables.markdown
    )
    echo(write(found), nl=False)
