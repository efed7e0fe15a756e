"""Rows with the place that each was read from, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from alignkit.data.conversations import flattened
from alignkit.errors import InputError, listing

Row = dict[str, Any]


class FileRow(NamedTuple):
    """A row, or what is wrong with it.

    `number`: its line; of a list and of Parquet its number among the rows. `place`: the
    file with it. `problem` begins with the place.
    """

    number: int
    place: str
    row: Row
    problem: str = ""


class RowError(InputError):
    """A row cannot be used; `number` is its own among those that were loaded, from 1."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


def read_conversations(rows: Iterable[FileRow]) -> Iterator[FileRow]:
    """The rows, those of conversations with prompt and response (see
    `conversations.flattened`).
    """
    for each in rows:
        try:
            yield each._replace(row=flattened(each.row)) if not each.problem else each
        except InputError as error:
            yield each._replace(problem=f"{each.place}: {error}")


def renamed(rows: Iterable[FileRow], columns: Mapping[str, str]) -> Iterator[FileRow]:
    """The rows with columns under other names: {question: problem} takes `problem` for
    `question`; dots go into nested values.
    """
    flat = set(columns.values()) - set(columns)
    for each in rows:
        if each.problem:
            yield each
            continue
        try:
            taken = {
                name: _lookup(each.row, theirs) for name, theirs in columns.items()
            }
        except InputError as error:
            yield each._replace(problem=f"{each.place} {error}")
            continue
        others = {name: value for name, value in each.row.items() if name not in flat}
        yield each._replace(row=others | taken)


def whole(rows: Iterable[FileRow]) -> Iterator[Row]:
    """The rows themselves.

    Raises:
        InputError: the first that has a problem.
    """
    for each in rows:
        if each.problem:
            raise InputError(each.problem)
        yield each.row


def _lookup(row: Row, source: str) -> Any:
    if source in row:
        return row[source]
    value: Any = row
    for part in source.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            has = listing(sorted(map(str, row)))
            raise InputError(f"has no column '{source}'; it has {has}")
    return value
