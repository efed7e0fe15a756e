"""A number with its unit."""

from __future__ import annotations

import re
from fractions import Fraction

from alignkit.grading.answer.formula import formula
from alignkit.grading.answer.shapes import ALTERNATIVE, NAMES, Answer, Hedged
from alignkit.grading.answer.tree import Tree, Unreadable, number
from alignkit.grading.answer.units import Unit, is_measure, unit_of


def quantity(text: str) -> Answer | None:
    """A number and what stands around it as a unit; None where nothing does."""
    money = re.match(
        r"^([-+]?)\s*(\\\$|\$|\\euro|\\pound|\\yen|\\text\s*\{\s*Rs\.?\s*\})\s*(?=[\d.])",
        text,
    )
    if money:
        rest = money[1] + text[money.end() :]
        inner = quantity(rest) or Answer("value", rest, formula(rest))
        unit = unit_of(money[2].replace("\\$", "$"))
        if unit is None or unit.contradicts(inner.unit):
            raise Unreadable("two units")
        return Answer("value", text, inner.tree, unit)
    if text.endswith(("\\%", "%")):
        head = text.removesuffix("%").removesuffix("\\").strip()
        return Answer("value", text, formula(head), _unit("%"))
    degrees = re.match(
        r"^([^a-zA-Z]+?)\^\s*\{?\\circ\s*\}?\s*(?:\\text\s*\{\s*)?([CF])?\s*\}?$", text
    )
    if degrees:
        return Answer("value", text, formula(degrees[1]), _unit(f"°{degrees[2] or ''}"))
    compound = re.findall(
        r"(\d+(?:\.\d+)?)\s*(?:\\text\s*\{([^{}]*)\}|([a-zA-Z]+))", text
    )
    if len(compound) > 1:
        return _compound(text, compound)
    worded = re.match(
        r"^(?P<number>.*?[\d)}!\]])\s*(?P<unit>(?:/?\s*\\text\s*\{[^{}]*\}\s*(?:\^\s*\{?-?\d\}?)?\s*(?:\\cdot\s*)?)+)"
        r"(?P<tail>/\s*[a-zA-Z]+(?:\^\s*\{?-?\d\}?)?)?$",
        text,
    )
    spaced = re.match(
        r"^(?P<number>[-+]?[\d./\s]*\d)(?P<gap>\s*)(?P<unit>[a-zA-Z][a-zA-Z\s./^\d{}]*)$",
        text,
    )
    if worded:
        words = worded["unit"] + (worded["tail"] or "")
        inside = " ".join(re.findall(r"\\text\s*\{([^{}]*)\}", words))
        if ALTERNATIVE.search(inside) or re.search(r"[=<>;]|\d\s|\d$", inside):
            raise Hedged("the words behind the number name alternatives")
        unit = unit_of(words)
        if unit is None:
            raise Hedged("words behind the number that are no unit")
        return Answer("value", text, formula(worded["number"]), unit)
    if spaced and (spaced["gap"] or _is_word(spaced["unit"])):
        first = spaced["unit"].split()[0]
        if ALTERNATIVE.search(spaced["unit"]):
            raise Hedged("the words behind the number name alternatives")
        letters = re.sub(r"[^a-zA-Z]", "", first)
        if (len(letters) > 2 and letters.lower() not in NAMES) or is_measure(letters):
            unit = unit_of(spaced["unit"])
            if unit is not None:
                return Answer("value", text, formula(spaced["number"]), unit)
    return None


def _is_word(text: str) -> bool:
    return len(text.split()[0]) > 2 and text.split()[0].isalpha()


def _unit(name: str) -> Unit:
    unit = unit_of(name)
    assert unit is not None
    return unit


def _compound(text: str, parts: list[tuple[str, str, str]]) -> Answer | None:
    """`3 hours 20 minutes`, `5 feet 2 inches`: their sum, in the basic unit."""
    units = [unit_of(one or two) for _, one, two in parts]
    if any(u is None or not u.dimensions or u.counted for u in units):
        return None
    known = [unit for unit in units if unit is not None]
    if any(unit.dimensions != known[0].dimensions for unit in known):
        return None
    total = sum(
        (
            unit.size * _fraction(value)
            for (value, *_), unit in zip(parts, known, strict=True)
        ),
        start=known[0].size * 0,
    )
    basic = Unit(known[0].dimensions)
    tree = Tree(
        "/", args=(number(str(total.numerator)), number(str(total.denominator)))
    )
    return Answer("value", text, tree, basic, label="compound")


def _fraction(text: str) -> Fraction:
    return Fraction(text)
