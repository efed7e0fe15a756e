"""What config classes state of their fields, as JSON on standard output.

A script of its own (`python trl_classes.py trl.GRPOConfig peft.LoraConfig`), since
importing TRL's classes takes seconds: trl_fields runs it once for the installed
versions and keeps the answer.

A type becomes a JSON Schema of the values that can be written in a recipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import inspect
import json
import re
import sys
import typing
from types import NoneType, UnionType
from typing import Any, Literal, Union

Schema = dict[str, Any]
PLAIN: dict[Any, Schema] = {
    Any: {},
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
}
UNWRITABLE: Schema = {"not": {}}  # an object that no recipe can state


def schema(kind: Any) -> Schema:
    """The JSON Schema of a resolved annotation."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if origin is Literal:
        return _literal(parts)
    if origin in (Union, UnionType):
        return _union(parts)
    if origin is list:
        return {"type": "array", "items": schema(parts[0])}
    if origin is tuple:
        return _tuple(parts)
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(parts[1])}
    if _is_enum(kind):
        return {"enum": [member.value for member in kind]}
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
        nested = {name: record["schema"] for name, record in fields(kind).items()}
        return {
            "type": "object",
            "title": kind.__name__,
            "properties": nested,
            "additionalProperties": False,
        }
    return UNWRITABLE


def _literal(values: tuple[Any, ...]) -> Schema:
    """PEFT writes a pattern among its choices: 'pissa_niter_[number of iters]'."""
    patterns = [v for v in values if isinstance(v, str) and "[" in v]
    plain = {"enum": [v for v in values if v not in patterns]}
    counted = [re.sub(r"\[.*?\]", r"\\d+", pattern) for pattern in patterns]
    return any_of([plain, *({"type": "string", "pattern": f"^{p}$"} for p in counted)])


def _tuple(parts: tuple[Any, ...]) -> Schema:
    if len(parts) == 2 and parts[1] is Ellipsis:
        return {"type": "array", "items": schema(parts[0])}
    items = [schema(part) for part in parts]
    size = len(items)
    return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}


def _union(parts: tuple[Any, ...]) -> Schema:
    """Beside an enum, plain text is one of the enum's values, written out."""
    leaves = [leaf for part in parts for leaf in (part, *typing.get_args(part))]
    enums = [schema(leaf) for leaf in leaves if _is_enum(leaf)]
    arms = [schema(part) for part in parts]
    return any_of([enums[0] if enums and arm == PLAIN[str] else arm for arm in arms])


def _is_enum(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, enum.Enum)


def any_of(arms: list[Schema]) -> Schema:
    """A union of schemas, each once. Where a class states the keys of a map, no other
    map is one.
    """
    flat = [inner for arm in arms for inner in arm.get("anyOf", [arm])]
    stated = any("title" in arm for arm in flat)
    kept: list[Schema] = []
    for arm in flat:
        if arm not in (*kept, UNWRITABLE) and not (stated and arm == PLAIN[dict]):
            kept.append(arm)
    if not kept:
        return UNWRITABLE
    return kept[0] if len(kept) == 1 else {"anyOf": kept}


def narrowed(whole: Schema, choices: list[str]) -> Schema:
    """The schema with the choices in the place of any text."""
    if whole == PLAIN[str]:
        return {"enum": choices}
    if "anyOf" in whole:
        return {"anyOf": [narrowed(arm, choices) for arm in whole["anyOf"]]}
    if whole.get("items") == PLAIN[str]:
        return {**whole, "items": {"enum": choices}}
    return whole


def choices_in_help(text: str, default: Any) -> list[str]:
    """The quoted values of a help text, where the default is one of them: TRL states
    most choices only so.
    """
    if isinstance(default, list):
        default = default[0] if default else None
    words = re.findall(r"(?<!=)'(\w+)'", text)
    if default not in words:
        listed = re.search(
            r"(?:Possible|Supported) values are:?([^.]*)\.|Must be one of([^.]*)\.",
            text,
        )
        named = re.findall(r"`'?([a-z]\w*)'?`", listed[0]) if listed else []
        words = named if len(named) > 1 else [*named, *words]
    choices = list(dict.fromkeys(words))
    return choices if default in choices and len(choices) > 1 else []


def documented(config: type) -> dict[str, Schema]:
    """What docstrings name beside the annotation: `fsdp` takes a bool, and
    `accelerator_config` a map of the fields of a class.
    """
    found = {}
    for base in reversed(config.__mro__):
        scope = vars(sys.modules[base.__module__])
        text = base.__doc__ or ""
        for name, types in re.findall(
            r"^ +(\w+) \((`.*?)(?:, \*optional.*)?\):", text, re.M
        ):
            words = re.findall(r"`([\w.\[\]]+)`", types)
            kinds = [_BUILTIN.get(word, scope.get(word)) for word in words]
            schemas = [
                schema(kind)
                for kind in kinds
                if kind in PLAIN or dataclasses.is_dataclass(kind)
            ]
            if schemas:
                found[name] = any_of(schemas)
    return found


_BUILTIN: dict[str, Any] = {
    kind.__name__: kind for kind in (bool, int, float, str, dict)
}


def fields(config: type) -> dict[str, dict[str, Any]]:
    """By name: schema, default, help, and whether only the help says the choices."""
    stated = (
        {f.name: f for f in dataclasses.fields(config)}
        if dataclasses.is_dataclass(config)
        else {}
    )
    hints, extra = typing.get_type_hints(config), documented(config)
    records = {}
    for name, parameter in inspect.signature(config).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        field = stated.get(name)
        default = plain(parameter.default if field is None else _default(field))
        metadata = {} if field is None else field.metadata
        text = str(metadata.get("help", "")).replace("%%", "%")
        whole = schema(hints.get(name, Any if default is None else type(default)))
        choices = list(metadata.get("choices", ()))
        in_help = (
            [] if choices or whole not in _TEXTS else choices_in_help(text, default)
        )
        if choices or in_help:
            whole = narrowed(whole, choices or in_help)
        records[name] = {
            "schema": any_of([whole, *_more(whole, extra.get(name, UNWRITABLE))]),
            "default": default,
            "help": text,
            "choices_in_help": bool(in_help),
        }
    return records


_TEXTS = (PLAIN[str], {"type": "array", "items": PLAIN[str]})


def _more(whole: Schema, documented: Schema) -> list[Schema]:
    """The documented arms of other kinds than the annotated ones."""
    kinds = {_kind(arm) for arm in whole.get("anyOf", [whole])}
    arms = documented.get("anyOf", [documented])
    return (
        []
        if whole == {}
        else [arm for arm in arms if "title" in arm or _kind(arm) not in kinds]
    )


def _kind(arm: Schema) -> str:
    kind = "string" if "enum" in arm else str(arm.get("type"))
    return "number" if kind == "integer" else kind  # a whole number is one


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def plain(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return (
        value if value is None or isinstance(value, bool | int | float | str) else None
    )


def main(names: list[str]) -> None:
    """Print the fields of the named classes."""
    found = {}
    with contextlib.redirect_stdout(sys.stderr):  # what packages print while they load
        for name in names:
            module, _, config = name.rpartition(".")
            found[name] = fields(getattr(importlib.import_module(module), config))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
