"""The one row of rollouts and eval samples: written complete, read from any version.

Rollouts of GRPO, RLOO and expert iteration and the samples of evals share these fields;
docs/metrics.md says what each means and where it is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from alignkit import json_text
from alignkit.errors import InputError
from alignkit.json_text import BadJson
from alignkit.run.files import append_bytes, atomic_write

VERSION = 1  # rows of alignkit 0.1 have none
LONGEST_INTEGER = 4300  # digits: Python refuses to read or write more as a number
# Fields that 0.1 did not have: there they are columns of the data set.
NEW = frozenset({"version", "group", "turns", "verdicts", "advantage", "source"})
LATE = frozenset({"vote"})  # fields that the first rows of this version did not have


class Entry(TypedDict):
    """What one reward says of a response."""

    reward: float | None
    status: str | None
    parts: dict[str, float]
    stage: str
    explanation: str


class Verdict(TypedDict):
    """What one judge says of a response, shown in one order."""

    judge: str
    order: int
    reward: float | None
    status: str
    explanation: str


class Source(TypedDict):
    """The row of a data set that a prompt was made of."""

    index: int  # from 0, among the rows that were loaded
    id: Any  # the row's own, where it has one
    file: str | None  # its path, or the name of the data set


class Row(TypedDict, total=False):
    """One completion. `new_row` fills in what a writer leaves out."""

    version: int
    id: str | None  # the question of an eval
    step: int | None
    group: int | None  # the prompt: its number in the step or in the iteration
    sample: int | None  # the completion's number among those of its prompt
    prompt: Any  # a text, or a list of messages
    response: str
    turns: list[dict[str, Any]] | None  # the messages of a multi-turn rollout
    truth: Any
    reward: float | None
    parts: dict[str, float]
    rewards: dict[str, Entry]
    verdicts: list[Verdict]
    advantage: float | None
    status: str | None
    stage: str
    explanation: str
    vote: str | None  # what a wrong answer was: the same text for equal ones
    finish_reason: str | None  # "stop" | "length"
    tokens: int | None
    mean_logprob: float | None  # nats per token
    mean_entropy: float | None  # nats per token
    source: Source | None
    metadata: dict[str, Any]
    seconds: float | None


def new_row(fields: Row) -> Row:
    """A row with every field, those that are not given empty."""
    empty: Any = dict.fromkeys(Row.__annotations__)
    empty |= {"version": VERSION, "stage": "", "explanation": "", "verdicts": []}
    empty |= {"parts": {}, "rewards": {}, "metadata": {}}
    return {**empty, **fields}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file of rows, or nothing; one row after another."""
    atomic_write(path, map(_line, rows))


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows; a torn last line of an earlier process is cut off first."""
    append_bytes(path, encode(rows))


def encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines that any reader of JSON takes.

    Numbers that are not finite become null and integers that Python cannot write become
    hexadecimal text. Lone surrogates of a hostile model's output are written escaped.
    """
    return b"".join(map(_line, rows))


def plain(value: Any) -> Any:
    """A value as it comes back once it was written."""
    return json_text.load(_line(value), _integer)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, also of alignkit 0.1; a torn last line is left out.

    Raises:
        InputError: for a damaged line elsewhere, with its number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = upgraded({**json_text.load(line, _integer)})
            except BadJson as error:
                raise InputError(f"{path}:{number}: not a row: {error.why}") from error
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}:{number}: not a row: {type(error).__name__}: {error}"
                ) from error
            yield row


def upgraded(fields: Mapping[str, Any]) -> Row:
    """A row of any version with every field of this one.

    Columns that are no fields, such as those of the data set in a filtered file, go to
    `metadata`.
    """
    known = set(Row.__annotations__)
    if not known - LATE <= fields.keys():
        known -= NEW | LATE
    row: Any = {name: fields[name] for name in fields if name in known}
    rest = {name: value for name, value in fields.items() if name not in row}
    # of expert iteration: the number of a question, beside what became of the answer
    if "surprise" in rest:
        row["group"] = rest.pop("question", None)
        surprise = rest.pop("surprise")
        row["mean_logprob"] = None if surprise is None else -surprise
        rest.pop("correct", None)
    if "ground_truth" in rest:
        row.setdefault("truth", rest.pop("ground_truth"))
    entries = {**(row.get("rewards") or {}), **(rest.pop("grade", None) or {})}
    row["rewards"] = {name: _entry(said) for name, said in entries.items()}
    row["metadata"] = {**rest, **(row.get("metadata") or {})}
    return new_row(row)


def _entry(said: Entry) -> Entry:
    empty = Entry(reward=None, status=None, parts={}, stage="", explanation="")
    return {**empty, **said}


def _line(row: Any) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except (ValueError, TypeError):
        text = json.dumps(_writable(row), ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _writable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _writable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and value.bit_length() > 3 * LONGEST_INTEGER:
        return hex(value)
    return value


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= LONGEST_INTEGER else text
