"""`align plugins`: list, show, new, check."""

from __future__ import annotations

import inspect
import keyword
from pathlib import Path
from typing import Any

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_registry,
    print_json,
)
from alignkit.errors import InputError, PluginError, listing, nearest
from alignkit.terminal import echo, say

DETAIL = 90  # characters shown of why something was not checked


@click.group()
def plugins() -> None:
    """List, show, make and check plugins."""


@plugins.command("list")
@click.option("--kind", help="Only plugins of this kind (reward, loss, eval, …).")
@kit_option
@json_option
def list_(kind: str | None, kit: tuple[str, ...], as_json: bool) -> None:
    """List the plugins of all kits."""
    from alignkit.plugins import KINDS

    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind {kind}: unknown; known: {listing(sorted(KINDS))}")
    registry = load_registry(kit=kit)
    found = [p for k in ([kind] if kind else KINDS) for p in registry.all(k)]
    if as_json:
        print_json(
            [
                {"kind": p.kind, "name": p.name, "kit": p.kit, "file": str(p.file)}
                for p in found
            ]
        )
        return
    from rich.table import Table

    table = Table("kind", "name", "kit", "what it does", box=None, pad_edge=False)
    for plugin in found:
        table.add_row(
            *(plugin.kind, plugin.name, plugin.kit),
            _summary(plugin.functions),
        )
    console().print(table)


@plugins.command()
@click.argument("name")
@kit_option
@json_option
def show(name: str, kit: tuple[str, ...], as_json: bool) -> None:
    """Show what a plugin does, its options with types and defaults, and its file."""
    from alignkit.plugins import KINDS
    from alignkit.provenance import identity

    registry = load_registry(kit=kit)
    known = {n for kind in KINDS for n in registry.names(kind)}
    found = [registry.get(kind, name) for kind in KINDS if name in registry.names(kind)]
    if not found:
        raise PluginError(f"there is no plugin '{name}'; {nearest(name, known)}")
    rows: list[dict[str, Any]] = []
    for plugin in found:
        options = {
            n: {
                "type": inspect.formatannotation(p.annotation),
                "default": None if p.default is p.empty else p.default,
            }
            for n, p in plugin.options().items()
        }
        doc = (
            inspect.getdoc(plugin.functions[0])
            if plugin.functions
            else str(plugin.value)
        )
        rows.append(
            {
                "kind": plugin.kind,
                "name": plugin.name,
                "file": plugin.where,
                "options": options,
                "doc": doc,
                "not_covered": list(identity(plugin).not_covered),
            }
        )
    if as_json:
        print_json(rows)
        return
    out = console()
    for row in rows:
        say(out, f"{row['kind']} {row['name']}  {row['file']}", style="bold")
        say(out, row["doc"] or "")
        for option, about in row["options"].items():
            say(out, f"  {option}: {about['type']} = {about['default']!r}")
        for note in row["not_covered"]:
            say(out, f"  its changes would not be seen: {note}")


@plugins.command()
@click.argument("kind", type=click.Choice(["reward", "eval", "loss", "judge"]))
@click.argument("name")
@click.option(
    "--kit",
    "folder",
    default=".",
    show_default=True,
    help="The kit folder to write into.",
)
def new(kind: str, name: str, folder: str) -> None:
    """Write a working plugin and its test into your kit."""
    from alignkit.cli.templates import TEMPLATES
    from alignkit.run import writing

    if not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(
            f"{name!r} cannot be a plugin's name; use letters, digits and _"
            " (short_answer)"
        )
    home, plugin, test = TEMPLATES[kind]
    files = {
        Path(folder) / home / f"{name}.py": plugin,
        Path(folder) / "tests" / f"test_{name}.py": test,
    }
    taken = [str(path) for path in files if path.exists()]
    if taken:
        raise InputError(
            f"{', '.join(taken)} is already there; choose another name, nothing was"
            " written"
        )
    for path, text in files.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("NAME", name), encoding="utf-8")
        echo(f"wrote {path}")
    echo(
        f"next: edit it, then  align plugins check {name} --kit {folder}  and  python"
        f" -m pytest {folder}/tests"
    )


@plugins.command()
@click.argument("names", nargs=-1)
@kit_option
@json_option
def check(names: tuple[str, ...], kit: tuple[str, ...], as_json: bool) -> int:
    """Prove that plugins keep the contract of their kind: all of them, or those named.

    A loss and an advantage run on the real trainers with a tiny model; a reward meets
    hostile strings in the grading workers. Exit code 1 when a check fails.
    """
    import contextlib
    import functools
    from dataclasses import asdict

    from alignkit import conformance
    from alignkit.plugins import KINDS

    registry = load_registry(kit=kit)
    chosen = [
        p for kind in KINDS for p in registry.all(kind) if not names or p.name in names
    ]
    unknown = set(names) - {p.name for p in chosen}
    if unknown:
        known = {n for kind in KINDS for n in registry.names(kind)}
        raise PluginError(
            *(
                f"there is no plugin '{name}'; {nearest(name, known)}"
                for name in sorted(unknown)
            )
        )

    out = console(as_json)
    found = []
    with contextlib.ExitStack() as stack, out.status("checking") as status:

        @functools.cache
        def laboratory() -> Any:
            from alignkit.conformance.laboratory import Laboratory

            return stack.enter_context(Laboratory())

        for plugin in chosen:
            status.update(f"checking {plugin.kind} {plugin.name}")
            found += conformance.prove(plugin, registry, laboratory)
    failed = [c for c in found if c.ok is False]
    if as_json:
        print_json([asdict(c) for c in found])
    else:
        width = max(len(f"{c.kind} {c.plugin}") for c in found)
        marks = {True: "ok", False: "FAILED", None: "-"}
        for c in found:
            detail = c.detail if c.ok is False else c.detail[:DETAIL]
            echo(
                f"{f'{c.kind} {c.plugin}':{width}}  {marks[c.ok]:6}  {c.check:24}"
                f" {detail}".rstrip()
            )
        skipped = sum(c.detail.startswith("not checked") for c in found)
        echo(f"{len(found)} checks, {len(failed)} failed, {skipped} not checked")
    return 1 if failed else 0


def _summary(functions: tuple) -> str:
    doc = (inspect.getdoc(functions[0]) if functions else None) or ""
    return doc.split("\n")[0]
