"""`align doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_recipe,
    load_registry,
    print_json,
)
from alignkit.terminal import mark, say

if TYPE_CHECKING:
    from alignkit.machine.doctor import Finding

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
    findings: Sequence[Finding],
    recipe: str | None,
    missing: Sequence[str],
    wrong: Sequence[str],
) -> None:
    out = console()
    width = max(len(one.name) for one in findings)

    def line(word: str, style: str, text: str) -> None:
        mark(out, word, style, f"  {text}")

    for one in findings:
        line(f"{one.status:7}", _STYLES[one.status], f"{one.name:{width}}  {one.found}")
        if one.fix:
            say(out, f"{'':{width + 11}}{one.fix}")
    if recipe is None:
        return
    for text in wrong:
        line("wrong", "red", text)
    for text in missing:
        line("missing", "red", text)
    if not missing and not wrong:
        line("ok", "green", f"{recipe} can run here")
