"""YAML as a tree that knows where every value stands.

Read from parser events, not through a YAML library's constructor: so that numbers and
words follow YAML 1.2 in every version (`1e-5` is a number, `no` is text), duplicate
keys are seen, and no tag can build an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from alignkit.errors import RecipeError
from alignkit.recipe.paths import shown
from alignkit.recipe.tree import DELETE, Kind, Node, Origin, describe, plain

MAX_BYTES = 1_000_000
# aliases repeat what they name, so a small file can mean an enormous tree
MAX_NODES = 50_000
MAX_DEPTH = 40
MAX_INTEGER = 2**63  # no setting means more, and products of two are floats still
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_WORDS: dict[str, bool | None] = {"null": None, "Null": None, "NULL": None, "": None}
_WORDS |= {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


def read(path: Path, kind: Kind, problems: list[str]) -> Node:
    """The tree of a recipe file, its top level a map. Duplicate keys and tags are added
    to `problems`.

    Raises:
        RecipeError: with file, line and column of what is no YAML or no map.
    """
    name = str(path)
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.glob("*.yaml"))
            raise RecipeError(
                f"{shown(name)}:1:1: this is a folder; give a recipe file"
                + (f", such as {shown(str(path / inside[0]))}" if inside else "")
            )
        if not path.is_file():
            raise RecipeError(f"{shown(name)}:1:1: this is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(
                f"{shown(name)}:1:1: {path.stat().st_size} bytes are too many for a"
                " recipe"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{shown(name)}:1:1: cannot be read: {error.strerror}"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{shown(name)}:{line}:1: not UTF-8 text (is this a binary file?)"
        ) from error
    node = parse(text, Origin(name, kind=kind), problems)
    if not isinstance(node.value, dict):
        given = "it is empty" if node.empty else f"given {describe(plain(node))}"
        raise RecipeError(f"{node.origin}: a recipe is a map of keys; {given}")
    return node


def parse(text: str, start: Origin, problems: list[str]) -> Node:
    """The tree of a YAML text; `start` says whose origins the values get. Duplicates
    are added to `problems`.

    Raises:
        RecipeError: at the first place that is no YAML.
    """
    builder = _Builder(start, problems)
    try:
        node = builder.build(builder.whole(YAML(typ="safe", pure=True).parse(text)))
    except ReaderError as error:
        # ReaderError gives an offset into the whole text
        before = text[: error.position]
        at = builder.at(before.count("\n"), len(before) - before.rfind("\n") - 1)
        raise RecipeError(
            f"{at}: a control character stands here (is this a binary file?)"
        ) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(
            f"{builder.at(mark.line, mark.column)}: not YAML: {_reason(error)}"
        ) from error
    return node


def _reason(error: MarkedYAMLError) -> str:
    reason = str(error.problem or error.context).strip()
    if "'\\t'" in reason:
        return "a tab; YAML is indented by spaces"
    if "mapping values are not allowed" in reason:
        return (
            "a second ':' on this line, or wrong indentation; put text that holds ': '"
            " in quotes"
        )
    if "cannot start any token" in reason:
        return f"{reason}; put such text in quotes"
    return reason


class _Builder:
    def __init__(self, start: Origin, problems: list[str]) -> None:
        self.start = start
        self.problems = problems
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.nodes = 0

    def at(self, line: int, column: int) -> Origin:
        if self.start.kind == "set":
            return self.start
        return Origin(self.start.file, line + 1, column + 1, self.start.kind)

    def _at(self, event: Event) -> Origin:
        return self.at(event.start_mark.line, event.start_mark.column)

    def build(self, events: Iterator[Event]) -> Node:
        found = Node(None, self.at(0, 0), empty=True)
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise RecipeError(
                        f"{self._at(event)}: a second document ('---'); a recipe is one"
                    )
                found = self._node(next(events), events, 0)
        return found

    def whole(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events; a text that cannot be written anywhere is refused."""
        for event in events:
            if isinstance(event, ScalarEvent):
                try:
                    event.value.encode()
                except UnicodeEncodeError as error:
                    half = ord(event.value[error.start])
                    raise RecipeError(
                        f"{self._at(event)}: half a character (\\u{half:x})"
                    ) from error
            yield event

    def _node(self, event: Any, events: Iterator[Event], depth: int) -> Node:
        at = self._at(event)
        if depth > MAX_DEPTH:
            raise RecipeError(f"{at}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                raise RecipeError(
                    f"{at}: '*{event.anchor}' names no anchor above it; put text that"
                    " starts so in quotes"
                )
            node, size = self.anchors[event.anchor]
            self._count(size, at)
            return node
        before = self.nodes
        self._count(1, at)
        if event.tag is not None:
            self.problems.append(
                f"{at}: the tag {event.tag}; recipes hold plain values only"
            )
        if isinstance(event, MappingStartEvent):
            node = Node(self._map(events, depth), at)
        elif isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), SequenceEndEvent):
                items.append(self._node(inner, events, depth + 1))
            node = Node(items, at)
        else:
            node = self._scalar(event, at)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.nodes - before)
        return node

    def _map(self, events: Iterator[Event], depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            at = self._at(event)
            if not isinstance(event, ScalarEvent):
                raise RecipeError(f"{at}: a key must be a word")
            key = event.value
            node = self._node(next(events), events, depth + 1)
            if key in found:
                self.problems.append(
                    f"{at}: {key}: this key stands twice; first at {found[key].origin}"
                )
                continue
            # a value is found where its key is: that is where an editor should go
            found[key] = Node(node.value, at, node.empty)
        return found

    def _scalar(self, event: ScalarEvent, at: Origin) -> Node:
        if event.style is not None:
            return Node(event.value, at)
        try:
            value = scalar(event.value)
        except ValueError:
            value = MAX_INTEGER
        if isinstance(value, int) and abs(value) >= MAX_INTEGER:
            self.problems.append(f"{at}: a number of {len(event.value)} digits")
            return Node(0, at)
        return Node(value, at, empty=not event.value)

    def _count(self, size: int, at: Origin) -> None:
        self.nodes += size
        if self.nodes > MAX_NODES:
            raise RecipeError(f"{at}: more than {MAX_NODES} values; is this a recipe?")


def scalar(text: str) -> Any:
    """An unquoted word by YAML 1.2's core schema; `~` is DELETE."""
    if text == "~":
        return DELETE
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(_SPECIAL[text.lower()]) if text.lower() in _SPECIAL else text
