"""`align doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_recipe,
    load_registry,
    print_json,
)

_STYLES = {"ok": "green", "warning": "yellow", "missing": "red"}


@click.command()
@click.option(
    "--recipe", metavar="RECIPE", help="Also say whether this recipe can run here."
)
@kit_option
@json_option
def doctor(recipe: str | None, kit: tuple[str, ...], as_json: bool) -> int:
    """Say what this machine has and lacks, each with what mends it.

    Exit code with --recipe: 3 when something it needs is missing, 2 when it cannot work
    anywhere.
    """
    from alignkit import plan as planning
    from alignkit.machine import doctor as diagnosis

    stages = []
    if recipe is None:
        registry = load_registry(kit=kit)
    else:
        loaded, registry = load_recipe(recipe, kit=kit)
        stages = planning.plan(loaded, registry)
    judges = [plugin for plugin in registry.all("judge") if plugin.value.key]
    found = diagnosis.examine({p.value.key: f"judge {p.name}" for p in judges[::-1]})
    missing = [f"{stage.name}: {text}" for stage in stages for text in stage.missing]
    wrong = [f"{stage.name}: {text}" for stage in stages for text in stage.wrong]
    if as_json:
        verdict = (
            {}
            if recipe is None
            else {"recipe": {"path": recipe, "missing": missing, "wrong": wrong}}
        )
        print_json({"findings": [asdict(one) for one in found], **verdict})
    else:
        _print(found, recipe, missing, wrong)
    return 2 if wrong else 3 if missing else 0


def _print(
    found: list, recipe: str | None, missing: list[str], wrong: list[str]
) -> None:
    from rich.markup import escape

    out = console()
    width = max(len(one.name) for one in found)
    for one in found:
        style = _STYLES[one.status]
        line = (
            f"[{style}]{one.status:8}[/] {escape(one.name):{width}} "
            f" {escape(one.found)}"
        )
        out.print(line, highlight=False, soft_wrap=True)
        if one.fix:
            out.print(
                f"{'':{width + 11}}{escape(one.fix)}", highlight=False, soft_wrap=True
            )
    if recipe is None:
        return
    for kind, style, texts in (("wrong", "red", wrong), ("missing", "red", missing)):
        for text in texts:
            out.print(
                f"[{style}]{kind}[/]  {escape(text)}", highlight=False, soft_wrap=True
            )
    if not missing and not wrong:
        out.print(
            f"[green]ok[/]  {escape(recipe)} can run here",
            highlight=False,
            soft_wrap=True,
        )
