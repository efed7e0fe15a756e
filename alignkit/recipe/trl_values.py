"""Whether a value fits the type of a config class's field, and that type in words.

Types are the JSON Schemas that trl_classes makes; no other words of JSON Schema are
understood here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe.tree import describe

Schema = Mapping[str, Any]
Fault = tuple[tuple[str, ...], str]  # the keys below the field, what is wrong

_TRUTH = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}
_WORDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a map",
}


def faults(schema: Schema, value: Any) -> Iterator[Fault]:
    """What is wrong with a value; nothing where it fits. Whole numbers are numbers, and
    truth values are not.
    """
    arms = schema.get("anyOf", [schema])
    if any(_fits(arm, value) for arm in arms):
        return
    if isinstance(value, dict | list):
        inner = [arm for arm in arms if arm.get("type") == _kind(value)]
        if len(inner) == 1 and (below := list(_below(inner[0], value))):
            yield from below
            return
    hint = _hint(arms, value)
    # Of two words there is no need to say that they are text.
    given = repr(value) if hint else describe(value)
    yield (), f"given {given}, expected {words(schema)}{hint}"


def _fits(arm: Schema, value: Any) -> bool:
    if "not" in arm:
        return False
    if "enum" in arm:
        return any(type(value) is type(word) and value == word for word in arm["enum"])
    kind = _kind(value)
    kinds = ("integer", "number") if kind == "integer" else (kind,)
    if arm.get("type", kind) not in kinds:
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return re.search(arm.get("pattern", ""), value) is not None
    return not isinstance(value, dict | list) or not any(_below(arm, value))


def _kind(value: Any) -> str:
    for kind, name in (
        (bool, "boolean"), (int, "integer"), (float, "number"),
        (str, "string"), (list, "array"), (dict, "object"),
    ):  # fmt: skip
        if isinstance(value, kind):
            return name
    return "null"


def _below(arm: Schema, value: Any) -> Iterator[Fault]:
    """The faults inside a list or a map."""
    return _in_list(arm, value) if isinstance(value, list) else _in_map(arm, value)


def _in_list(arm: Schema, value: list[Any]) -> Iterator[Fault]:
    """A list's items have no place of their own in a file: the list's is told."""
    if not arm.get("minItems", 0) <= len(value) <= arm.get("maxItems", math.inf):
        yield (), f"given {describe(value)}, expected {words(arm)}"
        return
    items = arm.get("prefixItems") or [arm.get("items", {})] * len(value)
    for schema, item in zip(items, value, strict=True):
        for _, text in faults(schema, item):
            yield (), f"in the list: {text}"


def _in_map(arm: Schema, value: Mapping[str, Any]) -> Iterator[Fault]:
    known, more = arm.get("properties", {}), arm.get("additionalProperties", {})
    for name, item in value.items():
        if name not in known and more is False:
            close = nearest(str(name), known)
            yield (name,), f"{arm['title']} has no such field; {close}"
            continue
        for below, text in faults(known.get(name, more), item):
            yield (name, *below), text


def _hint(arms: list[Schema], value: Any) -> str:
    choices = [w for arm in arms for w in arm.get("enum", ()) if isinstance(w, str)]
    if not isinstance(value, str):
        return ""
    if any(arm.get("type") == "boolean" for arm in arms) and value.lower() in _TRUTH:
        return yes_or_no(value)
    return f"; {nearest(value, choices)}" if choices else ""


def yes_or_no(value: Any) -> str:
    """A hint where text stands that YAML 1.1 took for a truth value."""
    word = _TRUTH.get(value.lower()) if isinstance(value, str) else None
    return f"; write {word} ('{value}' is text in YAML 1.2)" if word else ""


def words(schema: Schema) -> str:
    """What a type takes, in words."""
    arms = schema.get("anyOf", [schema])
    return " or ".join(dict.fromkeys(_arm_words(arm) for arm in arms))


def _arm_words(arm: Schema) -> str:
    if "not" in arm:
        return "nothing (what it takes cannot be written in a recipe)"
    if "enum" in arm:
        listed = ["false" if word is False else str(word) for word in arm["enum"]]
        return f"one of {', '.join(listed)}" if len(listed) > 1 else listed[0]
    if "pattern" in arm:
        return f"text of the form {arm['pattern']}"
    if "prefixItems" in arm:
        items = [words(item) for item in arm["prefixItems"]]
        return f"a list of {len(items)}: {', '.join(items)}"
    if arm.get("items"):
        return f"a list of {words(arm['items'])}"
    return _WORDS.get(arm.get("type", ""), "anything")
