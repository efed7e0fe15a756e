"""What answers are made of, and where their texts part."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from alignkit.grading.answer.tree import Tree
from alignkit.grading.answer.units import Unit
from alignkit.grading.latex_text import words

Kind = Literal[
    "words", "choice", "value", "several", "union", "matrix", "equation", "ratio",
    "time", "empty", "relation",
]  # fmt: skip
ALTERNATIVE = re.compile(
    r"\b(?:or|else|otherwise|if|maybe|possibly|perhaps|either|not|alternatively|depending"
    r"|unless|except|approximately|approx|about|wait)\b",
    re.IGNORECASE,
)
RELATION = re.compile(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<=|>=|<|>")
NAMES = words("""
    sin cos tan cot sec csc sqrt log exp arcsin arccos arctan sinh cosh tanh
    max min lim abs gcd lcm mod pi ln infinity
    """)


class Hedged(ValueError):
    """The text names alternatives."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one text says; which fields count is told by `kind`.

    `several` has `items` between `brackets` (none: a bare list), `union` intervals,
    `matrix` rows as `several`, `equation` two trees, `ratio` and `time` numbers.
    """

    kind: Kind
    text: str
    tree: Tree | None = None
    unit: Unit = field(default_factory=Unit)
    items: tuple[Answer, ...] = ()
    brackets: str = ""
    trees: tuple[Tree, ...] = ()
    label: str = ""


def split(text: str, sign: str) -> list[str]:
    """The parts between signs that stand in no bracket."""
    parts, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if text.startswith(sign, place) and depth == 0:
            parts.append(text[start:place])
            place += len(sign)
            start = place
            continue
        letter = text[place]
        depth += (letter in "([{") - (letter in ")]}")
        place += 1
    return [*parts, text[start:]]


def members(text: str) -> list[str]:
    """The members of a list: between commas, `and`, `or`."""
    parts = split(text, ",")
    if len(parts) == 1:
        return parts
    return [part.strip() for part in parts if part.strip()]


def bracketed(text: str) -> tuple[str, str] | None:
    """The brackets around the whole text, and what is inside."""
    if text.startswith("\\{") and text.endswith("\\}"):
        return "{}", text[2:-2]
    if len(text) < 3 or text[0] not in "([" or text[-1] not in ")]":
        return None
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return (text[0] + text[-1], text[1:-1]) if place == len(text) - 1 else None
    return None
