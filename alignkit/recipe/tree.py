"""A recipe as a tree in which every value knows where it was stated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from alignkit.recipe.paths import shown

Kind = Literal["recipe", "parent", "overlay", "set", "default"]


Key = tuple[str, ...]  # where a value stands: ("train", "learning_rate")


class _Delete:
    """What `~` means: the inherited key goes. (`null` is the value null.)"""

    def __repr__(self) -> str:
        return "~"


DELETE = _Delete()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was stated: a place in a file, a `--set`, or nowhere (a default)."""

    file: str  # absolute path; for `--set` its text
    line: int = 1
    column: int = 1
    kind: Kind = "recipe"

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        if self.kind == "set":
            return f"--set {self.file}"
        return f"{shown(self.file)}:{self.line}:{self.column}"


@dataclass(slots=True)
class Node:
    """A value and its origin. `value` is a dict of Nodes, a list of Nodes, a scalar, or
    DELETE.
    """

    value: Any
    origin: Origin
    empty: bool = field(default=False)  # `key:` with nothing behind it


def plain(node: Node) -> Any:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def walk(node: Node, key: Key = ()) -> Iterator[tuple[Key, Node]]:
    """Every node below with its key; the items of a list are keyed by their index."""
    children: dict[str, Node] = node.value if isinstance(node.value, dict) else {}
    if isinstance(node.value, list):
        children = {str(index): child for index, child in enumerate(node.value)}
    for name, child in children.items():
        yield (*key, name), child
        yield from walk(child, (*key, name))


def find(node: Node, key: Key) -> Node | None:
    """The node at a key, or None."""
    for name in key:
        if isinstance(node.value, dict) and name in node.value:
            node = node.value[name]
        elif (
            isinstance(node.value, list)
            and name.isdigit()
            and int(name) < len(node.value)
        ):
            node = node.value[int(name)]
        else:
            return None
    return node


def describe(value: Any) -> str:
    """A value as an error shows it, with its kind."""
    if isinstance(value, str):
        return f"{value if len(value) <= 60 else value[:60] + '…'!r} (text)"
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a map" + (
            f" of {', '.join(list(value)[:5])}" if value else " with nothing in it"
        )
    return f"the list {value}"[:80] if isinstance(value, list) else str(value)
