"""Divide rows into training and validation so that no question stands on both sides."""

from __future__ import annotations

import hashlib
import math
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.data.rows import RowError
from alignkit.data.spool import Placed
from alignkit.errors import InputError, listing

Row = Mapping[str, Any]

# What only lays a formula out: spaces, delimiters that grow, `\dfrac` for `\frac`.
_LAYOUT = re.compile(
    r"\\[,;:!]|\\(?:quad|qquad|left|right|displaystyle)(?![a-z])|\$|\\[()\[\]]"
)
# hyphens, dashes, the minus sign
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
# Between digits these marks are part of a number.
_PUNCTUATION = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|[;!?\"'`\u2018\u2019\u201c\u201d]")
_LOOSE_SPACE = re.compile(r"\s+(?=[^\w\s])|(?<=[^\w\s])\s+")


def normalise(text: str) -> str:
    """The text without what two copies of one question differ in: case, spacing,
    layout, quotes, punctuation.

    Signs of mathematics stay, so that `x + 1` equals `x+1` and differs from `x-1`.

    >>> normalise("What is $\\\\dfrac{1}{2} + 3$?") == normalise("what is \\\\frac{1}{2}+3")
    True
    """
    text = unicodedata.normalize("NFKC", text).casefold().translate(_DASHES)
    # zero-width spaces, soft hyphens, marks
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = _FRACTION.sub(r"\\frac", _LAYOUT.sub(" ", text))
    text = _PUNCTUATION.sub(" ", text)
    # of punctuation alone nothing would be left to compare
    return " ".join(_LOOSE_SPACE.sub("", text).split()) or text


def question_of(row: Row, number: int, column: str | None = None) -> str:
    """The text that identifies a row, the `number`th: the named column, else the first of
    `QUESTION_OR_PROMPT`.

    Raises:
        RowError: when the row has none of them.
    """
    name = column or next((c for c in QUESTION_OR_PROMPT if c in row), None)
    value = row.get(name) if name else None
    if isinstance(value, str):
        return value
    if (
        isinstance(value, Sequence)
        and value
        and all(isinstance(m, Mapping) for m in value)
    ):
        return "\n".join(str(m.get("content", "")) for m in value)
    expected = (
        f"a text in '{column}'"
        if column
        else f"a text in one of {listing(list(QUESTION_OR_PROMPT))}"
    )
    raise RowError(
        number,
        f"expected {expected}; row {number} has {listing(sorted(map(str, row)))}",
    )


def digest(text: str) -> bytes:
    """What stands for a normalised text where many are held."""
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()


class Part(Placed):
    """Some rows of a set, read from there; `equals` says what a removed one equals."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._numbers: list[int] = []
        self._equals: list[str] = []

    def add(self, number: int, equals: str | None = None) -> None:
        """Take the row of this place."""
        self._numbers.append(number)
        if equals is not None:
            self._equals.append(equals)

    def __len__(self) -> int:
        return len(self._numbers)

    def _row(self, at: int) -> dict[str, Any]:
        row = self._rows[self._numbers[at]]
        if not self._equals:
            return dict(row)
        return {**row, "removed": f"same question as {self._equals[at]}"}


@dataclass(frozen=True, slots=True)
class Split:
    """Rows in their order. A removed row says under `removed` what it equals."""

    train: Part
    validation: Part
    removed: Part


def split(
    rows: Sequence[Row],
    *,
    validation: float,
    against: Mapping[str, Sequence[Row]] | None = None,
    column: str | None = None,
    seed: int = 0,
) -> Split:
    """Draw validation rows and remove leakage, comparing normalised questions.

    Args:
        validation: how many distinct questions (1 or more), or which share of them
            (below 1); 0 draws none.
        against: further sets (benchmarks) by name; a row whose question stands in one
            of them is removed.
        column: holds the question; see `question_of`.

    A question drawn for validation keeps its first row there; its other rows are
    removed, so that none trains.

    Raises:
        InputError: more validation questions asked for than there are, or a row without
            a question.
    """
    if not math.isfinite(validation):
        raise InputError(
            f"{validation} validation questions are asked for; expected a number, or"
            " below 1 a share"
        )
    taken: dict[bytes, str] = {}
    for name, others in (against or {}).items():
        for number, row in enumerate(others, 1):
            try:
                text = digest(normalise(question_of(row, number)))
            except RowError as error:
                raise InputError(f"{name}: {error}") from error
            taken.setdefault(text, f"row {number} of {name}")
    texts = [
        digest(normalise(question_of(row, number, column)))
        for number, row in enumerate(rows, 1)
    ]
    free = list(dict.fromkeys(text for text in texts if text not in taken))
    count = int(validation) if validation >= 1 else round(validation * len(free))
    if not 0 <= count < max(len(free), 1):
        raise InputError(
            f"{count} validation questions are asked for, but only {len(free)} distinct"
            " ones are left to divide"
        )
    drawn = set(random.Random(seed).sample(free, count))
    parts = Split(Part(rows), Part(rows), Part(rows))
    for number, text in enumerate(texts):
        if text in taken:
            parts.removed.add(number, taken[text])
        elif text in drawn:
            taken[text] = f"validation (row {number + 1})"
            parts.validation.add(number)
        else:
            parts.train.add(number)
    return parts
