"""`align diff` and `align schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_recipe,
    print_json,
)
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from alignkit.recipe import Recipe

# Of a manifest: what else may make two runs differ.
_BETWEEN_RUNS = ("versions", "hardware", "data", "git", "model", "lineage")


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", required=False)
@click.option(
    "--with",
    "overlays",
    multiple=True,
    metavar="FILE",
    help="Merge an overlay into both (repeatable).",
)
@kit_option
@json_option
def diff(
    a: str,
    b: str | None,
    overlays: tuple[str, ...],
    kit: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what differs between two recipes or run folders A and B, or between recipe A
    and what it extends.

    Only what differs, resolved, with where each value comes from; between runs also
    versions, hardware, data and plugins.
    """
    from alignkit.recipe import ABSENT, diff_against_parent, differences

    first = _load(a, overlays, kit)
    if b is None:
        changes = diff_against_parent(first)
    else:
        changes = differences(first, _load(b, overlays, kit))
    rows = [
        {
            "key": d.key,
            "a": None if d.a is ABSENT else d.a,
            "b": None if d.b is ABSENT else d.b,
            "a_from": None if d.a_origin is None else str(d.a_origin),
            "b_from": None if d.b_origin is None else str(d.b_origin),
        }
        for d in changes
    ]
    if b is not None and _is_run(a) and _is_run(b):
        rows += _between_runs(Path(a), Path(b))
    if as_json:
        print_json(rows)
        return
    out = console()
    if not out.is_terminal:
        out.width = 240  # a pipe has no width of its own
    if not rows:
        say(out, "nothing differs")
        return
    from rich.table import Table

    titles = ("parent", Path(a).name) if b is None else (a, b)
    table = Table(box=None, pad_edge=False)
    for title in ("setting", *titles, "from"):
        table.add_column(title, overflow="fold")
    for row in rows:
        origins = " | ".join(str(o) for o in (row["a_from"], row["b_from"]) if o)
        cells = (row["key"], _shown(row["a"]), _shown(row["b"]), origins)
        table.add_row(*map(str, cells))
    out.print(table)


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _is_run(path: str) -> bool:
    return (Path(path) / "manifest.json").is_file()


def _load(path: str, overlays: tuple[str, ...], kit: tuple[str, ...]) -> Recipe:
    source = str(Path(path) / "recipe.yaml") if _is_run(path) else path
    return load_recipe(source, overlays, (), kit)[0]


def _between_runs(a: Path, b: Path) -> list[dict[str, Any]]:
    from alignkit.provenance import code_of
    from alignkit.recipe import ABSENT, diff_resolved
    from alignkit.run import Run

    manifests = [Run.open(path).manifest for path in (a, b)]
    codes = [code_of(manifest) for manifest in manifests]
    if codes[0]["identity"] != codes[1]["identity"]:  # then no part of them is told
        codes = [{"identity": code["identity"]} for code in codes]
    sides = [
        {k: v for k, v in manifest.items() if k in _BETWEEN_RUNS} | code
        for manifest, code in zip(manifests, codes, strict=True)
    ]
    return [
        {
            "key": d.key,
            "a": None if d.a is ABSENT else d.a,
            "b": None if d.b is ABSENT else d.b,
            "a_from": "manifest",
            "b_from": "manifest",
        }
        for d in diff_resolved(*sides)
    ]


@click.command()
@click.option("--keys", is_flag=True, help="Print the page of all keys instead.")
def schema(keys: bool) -> None:
    """Print the JSON Schema of recipes; editors complete and check recipes with it."""
    from alignkit.recipe import json_schema
    from alignkit.recipe.schema.reference import reference

    if keys:
        echo(reference(), nl=False)
    else:
        print_json(json_schema())
