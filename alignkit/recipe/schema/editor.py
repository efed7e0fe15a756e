"""A JSON Schema of recipe files, by which editors complete and check them."""

from __future__ import annotations

from typing import Any

from alignkit.recipe import trl
from alignkit.recipe.schema import METHODS, walk


def json_schema() -> dict[str, Any]:
    """A JSON Schema of recipe files, for editors. Nothing is required: a child recipe
    states only what differs.
    """
    recipe = walk.anything().model_json_schema()
    defs = recipe.pop("$defs")
    path = {"type": "string"}
    recipe["properties"]["extends"] = {
        "description": (
            "The recipe this one changes, or a list of them; later ones win."
        ),
        "anyOf": [path, {"type": "array", "items": path}],
    }
    for section in (recipe, *defs.values()):
        section.pop("required", None)
        for name, value in section.get("properties", {}).items():
            section["properties"][name] = _or_null(value)
    for named in ("Prompt", "EvalReward"):  # a name alone stands for a map with it
        defs[named] = {"anyOf": [{"type": "string"}, defs[named]]}
    recipe["properties"]["stages"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#"},
    }
    recipe["allOf"] = [
        {
            "if": {"properties": {"method": {"const": method}}, "required": ["method"]},
            "then": {"properties": {"train": _train(method)}},
        }
        for method in METHODS
        if method != "pipeline"
    ]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | recipe | {"title": "alignkit recipe", "$defs": defs}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, null allowed: `~` deletes an inherited key, also one of a map of
    names.
    """
    null = {"type": "null"}
    arms = [_named_or_null(arm) for arm in schema.get("anyOf", []) if arm != null]
    return (
        schema | {"anyOf": [*arms, null]}
        if arms
        else {"anyOf": [_named_or_null(schema), null]}
    )


def _named_or_null(schema: dict[str, Any]) -> dict[str, Any]:
    named = schema.get("additionalProperties")
    return (
        schema | {"additionalProperties": _or_null(named)}
        if isinstance(named, dict)
        else schema
    )


def _train(method: str) -> dict[str, Any]:
    """The schema of `train` for a method."""
    properties: dict[str, Any] = {}
    owned = walk.owned(method)
    for field in trl.fields(method).values():
        if field.name in owned:
            continue
        properties[field.name] = _or_null({**field.schema, "description": field.help})
    return {"type": "object", "properties": properties, "additionalProperties": False}
