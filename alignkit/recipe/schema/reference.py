"""The page of all recipe keys, made from their declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from alignkit.recipe.schema import METHODS
from alignkit.recipe.schema.walk import Declared, anything, declarations

_HEAD = """# All keys of a recipe

Made from the declarations in `alignkit/recipe/schema/` by `align schema --keys`.
`<name>` stands for the name of a plugin, a stage or a number. What else may stand
beside the keys of a reward, a loss, an advantage, an eval or a dataset are the options
of the plugin: `align plugins show KIND NAME`. `train` takes the fields of the installed
TRL's config class for the method.
"""
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "map",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def reference() -> str:
    """The page as Markdown: a table for each map of a recipe."""
    tables: dict[str, list[Declared]] = {}
    for known in declarations().values():
        if known.section is not None:
            tables[known.dotted] = []
    for known in declarations().values():
        above = known.path[:-1]
        while above and above[-1] == "*":
            above = above[:-1]
        name = ".".join(above).replace("*", "<name>")
        tables.setdefault(name, []).append(known)
    page = [_HEAD]
    for name, keys in sorted(tables.items()):
        if keys:
            page += [f"## {name or 'at the top'}", "", *_table(keys), ""]
    return "\n".join(page)


def _table(keys: list[Declared]) -> Iterator[str]:
    yield "| key | takes | default | methods | TRL | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for known in keys:
        cells = [
            f"`{known.path[-1]}`",
            _takes(known),
            _default(known.field),
            "all" if set(known.methods) == set(METHODS) else ", ".join(known.methods),
            f"`{known.key.trl}`" if known.key.trl else "",
            " ".join((known.field.description or "").split()),
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _takes(known: Declared) -> str:
    if known.section is not None:
        return "map of maps by name" if known.is_map else "map"
    field = known.field
    if known.path == ("method",):
        field = anything().model_fields["method"]
    taken: Any = field.annotation
    for part in field.metadata:
        taken = Annotated[taken, part]
    return _words(TypeAdapter(taken).json_schema())


def _words(schema: Mapping[str, Any]) -> str:
    arms = [arm for arm in schema.get("anyOf", ()) if arm != {"type": "null"}]
    if arms:
        return " or ".join(_words(arm) for arm in arms)
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    text = _WORDS.get(schema.get("type", ""), "anything")
    if schema.get("type") == "array" and schema.get("items"):
        text = f"list of: {_words(schema['items'])}"
    bounds = [f"{word} {schema[b]}" for b, word in _BOUNDS.items() if b in schema]
    return ", ".join([text, *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float | str):
        return f"`{value}`"
    return "empty" if not value else ""
