"""What the installed transformers says in its source, read without importing it."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignkit.errors import MissingError


@functools.cache
def module(file: str) -> ast.Module:
    """One of its files, parsed."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise MissingError("transformers is not installed: pip install alignkit")
    return ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))


def enum(file: str, name: str) -> Mapping[str, str]:
    """The members of an enum, with their values."""
    (found,) = (
        node
        for node in module(file).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        ast.unparse(member.targets[0]): ast.literal_eval(member.value)
        for member in found.body
        if isinstance(member, ast.Assign)
    }


def functions(file: str) -> Mapping[str, ast.arguments]:
    """The signatures of a file's functions."""
    nodes = module(file).body
    return {node.name: node.args for node in nodes if isinstance(node, ast.FunctionDef)}


def table(file: str, name: str) -> Mapping[str, str]:
    """A dict literal of a file, keys and values as they are written."""
    (found,) = (
        node.value
        for node in module(file).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    assert isinstance(found, ast.Dict)
    pairs: Any = zip(found.keys, found.values, strict=True)
    return {ast.unparse(key): ast.unparse(value) for key, value in pairs}
