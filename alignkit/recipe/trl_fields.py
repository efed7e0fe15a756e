"""The fields of a config dataclass, read from its source.

Read, not imported: importing TRL's configs takes over five seconds (torch comes along),
parsing them 0.05.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Optional, Union

from alignkit.errors import MissingError

_TYPES: dict[str, Any] = {
    **{t.__name__: t for t in (int, float, str, bool, list, dict, tuple)},
    "Any": Any,
    "Optional": Optional,
    "Union": Union,
    "Literal": Literal,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config dataclass."""

    name: str
    annotation: str  # as its author wrote it
    type: Any  # for pydantic; an enum is the Literal of its values
    default: str  # as its author wrote it
    choices: tuple[str, ...]  # of a text; () where any will do
    help: str


def package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingError(
            f"the package '{name}' is not installed: pip install alignkit"
        )
    return Path(spec.origin).parent


@functools.cache
def _parsed(file: Path) -> dict[str, ast.ClassDef]:
    module = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}


def enums_in(*files: Path) -> dict[str, tuple[str, ...]]:
    """The values of every ExplicitEnum (transformers' kind of choices) in some source
    files.
    """
    found = {}
    for file in files:
        for name, node in _parsed(file).items():
            if [ast.unparse(base) for base in node.bases] == ["ExplicitEnum"]:
                assigned = [s.value for s in node.body if isinstance(s, ast.Assign)]
                found[name] = tuple(
                    v.value
                    for v in assigned
                    if isinstance(v, ast.Constant) and isinstance(v.value, str)
                )
    return found


def dataclass_fields(
    file: Path, name: str, enums: Mapping[str, tuple[str, ...]], unknown: Any
) -> dict[str, Field]:
    """The fields that one dataclass of a source file states itself, without those it
    inherits.

    `enums` are the choices known by name; `unknown` is the type for every other class.
    """
    found = {}
    for statement in _parsed(file)[name].body:
        if isinstance(statement, ast.AnnAssign) and isinstance(
            statement.target, ast.Name
        ):
            field = _field(
                statement.target.id,
                statement.annotation,
                statement.value,
                enums,
                unknown,
            )
            found[field.name] = field
    return found


def _field(
    name: str,
    annotation: ast.expr,
    value: ast.expr | None,
    enums: Mapping[str, tuple[str, ...]],
    unknown: Any,
) -> Field:
    default, metadata = value, dict[Any, ast.expr]()
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        keywords = {k.arg: k.value for k in value.keywords}
        default = keywords.get("default", keywords.get("default_factory"))
        stated_metadata = keywords.get("metadata")
        if isinstance(stated_metadata, ast.Dict):
            pairs = zip(stated_metadata.keys, stated_metadata.values, strict=True)
            metadata = {k.value: v for k, v in pairs if isinstance(k, ast.Constant)}
    if isinstance(default, ast.Lambda):
        default = default.body
    text = _literal(metadata.get("help")) or ""
    stated = _literal(default)
    stated = stated[0] if isinstance(stated, list) and stated else stated
    named = [
        n.id for n in ast.walk(annotation) if isinstance(n, ast.Name) and n.id in enums
    ]
    if named:
        choices = tuple(dict.fromkeys(v for n in named for v in enums[n]))
    elif "choices" in metadata:
        choices = tuple(_literal(metadata["choices"]) or ())
    else:
        choices = (
            _choices_in_help(text, stated)
            if ast.unparse(annotation) in ("str", "list[str]")
            else ()
        )
    written = (
        " | ".join(p for p in ast.unparse(annotation).split(" | ") if p not in enums)
        if named
        else None
    )
    return Field(
        name,
        written or ast.unparse(annotation),
        _type(annotation, enums, unknown),
        "" if default is None else ast.unparse(default),
        choices,
        text.replace("%%", "%"),
    )


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _choices_in_help(text: str, default: Any) -> tuple[str, ...]:
    """The quoted values of a help text, where the default is one of them: TRL states
    most choices only so.
    """
    quoted = tuple(dict.fromkeys(re.findall(r"(?<!=)'(\w+)'", text)))
    if default not in quoted:
        listed = re.search(
            r"(?:Possible|Supported) values are:?([^.]*)\.|Must be one of([^.]*)\.",
            text,
        )
        quoted = (
            tuple(dict.fromkeys(re.findall(r"`'?([a-z]\w*)'?`", listed[0])))
            if listed
            else ()
        )
    return quoted if default in quoted and len(quoted) > 1 else ()


def _type(node: ast.expr, enums: Mapping[str, tuple[str, ...]], unknown: Any) -> Any:
    """The type that an annotation means, for pydantic."""
    if isinstance(node, ast.Constant):
        return NoneType if node.value is None else node.value
    if isinstance(node, ast.BinOp):
        return _type(node.left, enums, unknown) | _type(node.right, enums, unknown)
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = tuple(_type(part, enums, unknown) for part in parts)
        if any(isinstance(part, str) and "[" in part for part in inner):
            # PEFT writes a pattern among its choices: 'pissa_niter_[number of iters]'
            return str
        return _type(node.value, enums, unknown)[inner if len(inner) > 1 else inner[0]]
    name = ast.unparse(node)
    return str if name in enums else _TYPES.get(name, unknown)
