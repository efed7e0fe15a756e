"""`align plan`: the dry run."""

from __future__ import annotations

from typing import Any

import click

from alignkit.cli.common import (
    console,
    json_option,
    load_recipe,
    print_json,
    recipe_options,
)
from alignkit.terminal import mark, say


@click.command()
@recipe_options
@json_option
def plan(
    recipe: str,
    overlays: tuple[str, ...],
    sets: tuple[str, ...],
    kit: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show what RECIPE would do, where each setting comes from, and what is missing
    here. Trains nothing.

    Exit code 2: the recipe cannot work; 3: something it needs is missing on this
    machine.
    """
    from alignkit import plan as planning

    loaded, registry = load_recipe(recipe, overlays, sets, kit)
    plans = planning.plan(loaded, registry, estimates=True)
    if as_json:
        origins = {key: str(origin) for key, origin in loaded.origins.items()}
        print_json(
            {
                "recipe": loaded.resolved,
                "origins": origins,
                "stages": [p.record() for p in plans],
            }
        )
    else:
        _print(loaded, plans)
    if any(p.wrong for p in plans):
        return 2
    return 3 if any(p.missing for p in plans) else 0


def _print(loaded: Any, plans: list[Any]) -> None:
    out = console()
    stated = {
        key: (repr(value), str(origin))
        for key, origin in loaded.origins.items()
        if origin.kind != "default"
        and not isinstance(value := _at(loaded.resolved, key), dict)
    }
    key_width = max(map(len, stated), default=0)
    value_width = min(40, max((len(value) for value, _ in stated.values()), default=0))
    for key, (value, origin) in stated.items():
        say(out, f"{key:{key_width}}  {value:{value_width}}  {origin}")
    for p in plans:
        out.rule(f"{p.name} ({p.config.method})")
        for plugin in p.plugins:
            say(out, f"{plugin.kind} {plugin.name}: {plugin.file}")
        for title, facts in (
            ("batches", p.arithmetic),
            ("rows", p.rows),
            ("prompt", p.prompt),
        ):
            for name, value in facts.items():
                shown = (
                    f"{value:.1%}"
                    if isinstance(value, float) and title == "rows"
                    else value
                )
                say(out, f"{title}: {name}: {shown}")
        for text in p.hosts:
            say(out, f"server: {text}")
        for text in _estimate(p.estimate):
            say(out, text)
        for word, style, texts in (
            ("warning", "yellow", p.warnings),
            ("wrong", "red", p.wrong),
            ("missing", "yellow", p.missing),
        ):
            for text in texts:
                mark(out, word, style, f": {text}")


def _estimate(found: dict[str, Any]) -> list[str]:
    """The estimate in short lines."""
    from alignkit.endpoint.costs import Estimate
    from alignkit.plan.memory import gib

    lines = [
        f"estimate: {name}: {value:,}" for name, value in found.get("work", {}).items()
    ]
    if "memory" in found:
        model, memory = found["model"], found["memory"]
        lines.append(
            f"estimate: parameters: {model['parameters']:,}, of which trained"
            f" {model['trainable']:,}"
        )
        parts = ", ".join(
            f"{name} {gib(size)}" for name, size in memory["parts"].items()
        )
        lines.append(f"memory: {gib(memory['peak'])}: {parts}")
        share = memory.get("vllm share")
        lines += (
            [f"memory: vLLM takes {share:.0%} of the card besides"] if share else []
        )
        for name, size in memory["cards"]:
            free = size * (1 - (share or 0))
            fits = "fits" if memory["peak"] <= free else "does not fit"
            lines.append(
                f"memory: {fits} the card {name} ({gib(size)}, {gib(free)} for"
                " training)"
            )
    else:
        lines.append("memory: unknown, as the model's configuration is not here")
    if "files" in found:
        files = found["files"]
        for what in ("checkpoint", "model"):
            count = "?" if files[f"{what}s"] is None else files[f"{what}s"]
            lines.append(
                f"files: {count} {what}(s) of {gib(files[f'bytes of a {what}'])}"
            )
    for name, cost in found.get("judges", {}).items():
        judge = cost["judge"]
        lines.append(
            f"judge {judge}: eval {name}:"
            f" {Estimate(**{k: v for k, v in cost.items() if k != 'judge'})}"
        )
    if "time" in found:
        lines.append(
            f"time: about {found['time']['seconds']:,} s, at the rate of"
            f" {found['time']['measured in']}"
        )
    else:
        lines.append(
            "time: unknown here, as no earlier run of this recipe was measured on this"
            " machine"
        )
    return lines


def _at(resolved: Any, key: str) -> Any:
    for part in key.split("."):
        resolved = resolved.get(part) if isinstance(resolved, dict) else None
    return resolved
