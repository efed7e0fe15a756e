"""The options of plugins: what a recipe may set, checked and given to the function."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from alignkit.errors import nearest
from alignkit.plugins.plugin import Plugin


def check_options(plugin: Plugin, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, problem) for every option that the plugin does not have, of a wrong
    type, or missing.
    """
    known, hints = plugin.options(), plugin.hints()
    problems = []
    for name, value in options.items():
        if name in known:
            problem = _mismatch(plugin, name, value, hints[name])
        else:
            hint = nearest(name, known) if known else "it has no options"
            if plugin.kind == "reward" and name in plugin.value.retired:
                hint = f"it is retired: {plugin.value.retired[name]}"
            problem = (
                f"{plugin.kind} '{plugin.name}' has no option '{name}'; {hint}"
                f" ({plugin.where})"
            )
        if problem:
            problems.append((name, problem))
    needed = [n for n, p in known.items() if p.default is p.empty and n not in options]
    for name in needed:
        text = f"{plugin.kind} '{plugin.name}' needs the option '{name}'"
        problems.append((name, f"{text} ({plugin.where})"))
    return problems


def _mismatch(plugin: Plugin, name: str, value: Any, hint: Any) -> str:
    """Why a value is not of the option's type, or nothing."""
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    expected = inspect.formatannotation(hint)
    try:
        # JSON mode is strict about types and yet takes a YAML list for a tuple.
        TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except PydanticSchemaGenerationError:
        return (
            f"option '{name}' is of type {expected}, which no recipe can state"
            f" ({plugin.where})"
        )
    except ValidationError as error:
        return (
            f"option '{name}' of {plugin.kind} '{plugin.name}' is {value!r}; expected"
            f" {expected}: {error.errors()[0]['msg']}"
        )
    return ""


def typed_options(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, checked already, as the types that the plugin declares (a YAML list
    as a tuple).
    """
    from pydantic import TypeAdapter

    hints = plugin.hints()
    return {
        n: TypeAdapter(hints[n]).validate_json(json.dumps(v), strict=True)
        for n, v in options.items()
    }


def bind(
    plugin: Plugin, function: Callable[..., Any], options: Mapping[str, Any]
) -> Callable[..., Any]:
    """The function with those of the options that are its own; picklable when the
    function is.
    """
    own = {
        n
        for n, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    typed = typed_options(plugin, {n: v for n, v in options.items() if n in own})
    return functools.partial(function, **typed) if typed else function


def effective_options(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in force: the plugin's defaults, changed by those given."""
    defaults = {
        n: p.default for n, p in plugin.options().items() if p.default is not p.empty
    }
    return {**defaults, **options}
