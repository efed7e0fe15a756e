"""How a plan is shown: the verdict first, then groups under headings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.errors import printable
from alignkit.terminal import mark, say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.plan.planned import Plan
    from alignkit.recipe import Recipe

WIDTH = 100  # columns where there is no terminal
NAME = 13  # columns of what stands before a line
PROMPT = 300  # characters that are shown of the first prompt's end


def show(recipe: Recipe, plans: Sequence[Plan], origins: bool, out: Console) -> None:
    """Print the plans; `origins`: each stated setting with its place."""
    _verdict(plans, out)
    if origins:
        _origins(recipe, out)
    for p in plans:
        if len(plans) > 1:
            out.rule(f"{p.name} ({p.config.method})")
        for word, style, texts in (
            ("wrong", "red", p.wrong),
            ("missing", "yellow", p.missing),
            ("warning", "yellow", p.warnings),
        ):
            for text in texts:
                mark(out, word, style, f": {text}")
        stage = recipe.stages.get(p.name, recipe)
        groups = {
            "Settings, as stated": {} if origins else dict(_stated(stage)),
            "Batches": {"": [f"{k} {_number(v)}" for k, v in p.arithmetic.items()]},
            "Data": dict(_data(p)),
            "Cost": dict(_cost(p.estimate)),
            "Who is asked": {"": p.hosts},
            "Plugins": {"": [f"{plug.kind} {plug.name}" for plug in p.plugins]},
        }
        for title, lines in groups.items():
            if any(lines.values()):
                say(out, title, "bold")
                for name, parts in lines.items():
                    _say_parts(out, name, parts)


def _verdict(plans: Sequence[Plan], out: Console) -> None:
    wrong, missing, warnings = (
        sum(map(len, texts))
        for texts in zip(
            *((p.wrong, p.missing, p.warnings) for p in plans), strict=True
        )
    )
    if wrong:
        mark(out, "cannot work", "bold red", f": {_things(wrong, 'fault')}")
    elif missing:
        things = _things(missing, "thing")
        mark(out, "cannot start here", "bold yellow", f": {things} missing")
    else:
        said = f", with {_things(warnings, 'warning')}" if warnings else ""
        mark(out, "can start here", "bold green", said)


def _things(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _say_parts(out: Console, name: str, parts: Sequence[str]) -> None:
    """Parts behind a name, on as many lines as the screen needs."""
    if not parts:
        return
    lead = f"  {printable(name):{NAME}}" if name else "  "
    text = "; ".join(map(printable, parts))
    width = max(out.width, 40) if out.is_terminal else WIDTH
    for line in textwrap.wrap(
        text,
        width,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        say(out, line)


def _stated(stage: Recipe) -> Iterator[tuple[str, list[str]]]:
    """The settings that were stated, by section."""
    sections: dict[str, list[str]] = {}
    for key, value, _ in stage.settings():
        section, _, rest = key.partition(".")
        text = f"{rest} {_value(value)}" if rest else _value(value)
        sections.setdefault(section, []).append(text)
    yield from ((name, sections[name]) for name in sections if name != "description")


def _origins(recipe: Recipe, out: Console) -> None:
    rows = [
        (key, _value(value), str(origin)) for key, value, origin in recipe.settings()
    ]
    key_width = max((len(key) for key, _, _ in rows), default=0)
    value_width = min(40, max((len(value) for _, value, _ in rows), default=0))
    for key, value, origin in rows:
        say(out, f"{key:{key_width}}  {value:{value_width}}  {origin}")


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def _number(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _data(p: Plan) -> Iterator[tuple[str, list[str]]]:
    shares = {
        name: f"{value:.1%}" if isinstance(value, float) else _number(value)
        for name, value in p.rows.items()
    }
    count = shares.pop("rows", None)
    rows = [f"{count}"] if count else []
    yield "rows", [*rows, *(f"{share} {name}" for name, share in shares.items())]
    facts = {k: v for k, v in p.prompt.items() if k != "text"}
    yield "first prompt", [f"{k} {_number(v)}" for k, v in facts.items()]
    if text := str(p.prompt.get("text", "")):
        end = text if len(text) <= PROMPT else "…" + text[-PROMPT:]
        yield "", [end.replace("\n", "⏎")]


def _cost(estimate: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    from alignkit.endpoint.costs import Estimate
    from alignkit.plan.memory import gib

    work = estimate.get("work", {})
    yield "work", [f"{name} {value:,}" for name, value in work.items()]
    if "memory" in estimate:
        model, memory = estimate["model"], estimate["memory"]
        trained = f"of which trained {model['trainable']:,}"
        yield "parameters", [f"{model['parameters']:,}", trained]
        parts = [f"{name} {gib(size)}" for name, size in memory["parts"].items()]
        share = memory.get("vllm share") or 0
        beside = [f"vLLM takes {share:.0%} of the card besides"] if share else []
        yield "memory", [f"{gib(memory['peak'])}: {', '.join(parts)}", *beside]
        for name, size in memory["cards"]:
            free = size * (1 - share)
            fits = "fits" if memory["peak"] <= free else "does not fit"
            room = f"{gib(size)}, {gib(free)} for training"
            yield "card", [f"{fits} {name} ({room})"]
    else:
        yield "memory", ["unknown: the model's configuration is not here"]
    if files := estimate.get("files"):
        yield (
            "disk",
            [
                f"{'?' if files[f'{what}s'] is None else files[f'{what}s']} {what}(s) of"
                f" {gib(files[f'bytes of a {what}'])}"
                for what in ("checkpoint", "model")
            ],
        )
    for name, cost in estimate.get("judges", {}).items():
        figures = {key: value for key, value in cost.items() if key != "judge"}
        yield "judge", [f"{cost['judge']}: eval {name}: {Estimate(**figures)}"]
    if "time" in estimate:
        time = estimate["time"]
        rate = f"at the rate of {time['measured in']}"
        yield "time", [f"about {time['seconds']:,} s", rate]
    else:
        yield "time", ["unknown: no run of this recipe was measured on this machine"]
