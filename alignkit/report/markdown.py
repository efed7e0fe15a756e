"""Markdown in which text from outside makes no cell, tag, link or heading of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from alignkit.errors import printable

# a bar, a backslash, a tag, code, and what makes a link behind a bracket
_SPECIAL = re.compile(r"([|\\`]|<(?=[a-zA-Z/!?])|(?<=\])[(\[:])")


def escaped(text: object) -> str:
    """One line of text, as it is."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(str(text).split())))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a GitHub table."""
    yield _line(head)
    yield "|" + " --- |" * len(head)
    yield from map(_line, rows)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |"
