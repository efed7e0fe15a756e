"""Whether two answers mean the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

from alignkit.grading.answer.shapes import Answer
from alignkit.grading.answer.tree import Tree, number
from alignkit.grading.answer.worth import Worthless, exact, proportional, same

MAX_ITEMS = 64  # of a list
_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Terms:
    """How strictly numbers are compared.

    `units`: `agree`, a stated unit must not contradict the truth's; `exact`, it must be
    stated as the truth states it; `ignore`. `tolerance`: relative.
    """

    units: str = "agree"
    tolerance: float = 0.0


def equal(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    """Whether the answer means what the truth does, and why.

    Raises:
        Worthless: it cannot be told.
    """
    kinds = truth.kind, answer.kind
    if "empty" in kinds:
        return kinds[0] == kinds[1], "the empty set"
    if "choice" in kinds:
        return _choices(truth, answer, terms)
    if "words" in kinds:
        if truth.tree and answer.tree and same(truth.tree, answer.tree):
            return True, "the same product of letters"
        return _words(truth.text) == _words(answer.text), "compared as words"
    if "matrix" in kinds:
        if kinds[0] != kinds[1]:
            return False, "one is a matrix"
        return _in_order(truth.items, answer.items, terms)
    if truth.kind == "several" and truth.brackets == "row":
        return _in_order(truth.items, answer.items, terms)
    if "union" in kinds:
        if kinds[0] != kinds[1]:
            return False, "one is a union of intervals"
        return _as_sets(truth.items, answer.items, terms)
    if "several" in kinds:
        return _lists(truth, answer, terms)
    if "time" in kinds or "ratio" in kinds:
        return _ratios(truth, answer, terms)
    if "relation" in kinds:
        return _relations(truth, answer)
    return _values(truth, answer, terms)


def _words(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _choices(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    if truth.kind == answer.kind:
        return truth.label == answer.label, "letters of a choice"
    if truth.tree is not None and answer.tree is not None:
        return _values(truth, answer, terms)  # the letter of a variable
    return False, "one is the letter of a choice"


def _in_order(
    truths: tuple[Answer, ...], answers: tuple[Answer, ...], terms: Terms
) -> tuple[bool, str]:
    if len(truths) != len(answers):
        return False, f"{len(answers)} elements where the truth has {len(truths)}"
    for truth, answer in zip(truths, answers, strict=True):
        right, why = equal(truth, answer, terms)
        if not right:
            return False, f"{answer.text!r:.40} for {truth.text!r:.40}: {why}"
    return True, "equal element by element"


def _as_sets(
    truths: tuple[Answer, ...], answers: tuple[Answer, ...], terms: Terms
) -> tuple[bool, str]:
    if max(len(truths), len(answers)) > MAX_ITEMS:
        return False, f"a list of over {MAX_ITEMS}"
    if len(truths) != len(answers):
        return False, f"{len(answers)} elements where the truth has {len(truths)}"
    left = list(answers)
    for truth in truths:
        match = next((item for item in left if equal(truth, item, terms)[0]), None)
        if match is None:
            return False, f"{truth.text!r:.40} is not among the answers"
        left.remove(match)
    return True, "the same elements"


def _lists(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    """Sets and bare lists in any order, tuples and intervals in theirs."""
    if truth.kind != answer.kind:
        return False, "one is a list and the other is not"
    ordered = {"()", "[]", "(]", "[)"}
    tuples = truth.brackets in ordered, answer.brackets in ordered
    if tuples == (False, False):
        return _as_sets(_distinct(truth), _distinct(answer), terms)
    if tuples == (True, True):
        if truth.brackets != answer.brackets:
            return False, "the brackets differ"
        return _in_order(truth.items, answer.items, terms)
    bare = answer if tuples[0] else truth
    if bare.brackets:
        return False, "one is a set and the other is ordered"
    if all(item.label for item in bare.items):
        # x = 1, y = 2 is the pair of both
        named = tuple(sorted(bare.items, key=lambda item: item.label))
        pair = (truth.items, named) if tuples[0] else (named, answer.items)
        return _in_order(pair[0], pair[1], terms)
    if tuples[0] and not _could_be_interval(truth):
        return _in_order(truth.items, answer.items, terms)
    return False, "brackets are missing"


def _could_be_interval(answer: Answer) -> bool:
    if len(answer.items) != 2:
        return False
    values = [item.tree and exact(item.tree) for item in answer.items]
    if any(value is None for value in values):
        return True
    return bool(values[0] < values[1])  # type: ignore[operator]


def _distinct(answer: Answer) -> tuple[Answer, ...]:
    """A set has each element once."""
    if answer.brackets != "{}":
        return answer.items
    return tuple({item.text: item for item in answer.items}.values())


def _ratios(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    """Ratios by their proportions, a fraction too; times by the clock."""
    if truth.kind == answer.kind == "time":
        ours, theirs = _clock(answer), _clock(truth)
        halves = {truth.label, answer.label}
        if "" in halves and len(halves) == 2:
            # only one says which half of the day
            return ours % 720 == theirs % 720, "compared as times"
        return ours == theirs, "compared as times"
    if {truth.kind, answer.kind} <= {"ratio", "time"}:
        return _proportions(truth.trees, answer.trees, terms)
    if truth.kind == "time" or answer.kind == "time" or len(truth.trees) > 2:
        return False, "one is a time"
    sides = []
    for side in (truth, answer):
        if side.kind == "ratio":
            if len(side.trees) != 2:
                return False, "a ratio of several"
            sides.append(Tree("/", args=side.trees))
        elif side.tree is None:
            return False, "one is a ratio"
        else:
            sides.append(side.tree)
    return same(sides[0], sides[1], terms.tolerance), "a ratio as a fraction"


def _clock(answer: Answer) -> int:
    hours, minutes = (int(tree.text) for tree in answer.trees)
    if answer.label:
        hours = hours % 12 + (12 if answer.label == "p" else 0)
    return hours * _MINUTES + minutes


def _proportions(
    truths: tuple[Tree, ...], answers: tuple[Tree, ...], terms: Terms
) -> tuple[bool, str]:
    if len(truths) != len(answers):
        return False, "ratios of other lengths"
    for (a, x), (b, y) in itertools.pairwise(zip(truths, answers, strict=True)):
        crossed = Tree("*", args=(a, y)), Tree("*", args=(b, x))
        if not same(crossed[0], crossed[1], terms.tolerance):
            return False, "the proportions differ"
    return True, "the same proportions"


def _relations(truth: Answer, answer: Answer) -> tuple[bool, str]:
    if truth.kind != answer.kind or truth.label != answer.label:
        return False, "another relation"
    ours, theirs = Tree("-", args=answer.trees), Tree("-", args=truth.trees)
    if truth.label == "\\ne":
        return proportional(theirs, ours), "compared up to a factor"
    return same(theirs, ours), "the same relation"


def _values(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    """Numbers, formulas, equations."""
    equations = [
        len(side.trees) == 2 and side.kind != "ratio" for side in (truth, answer)
    ]
    if all(equations):
        if truth.label and truth.label == answer.label and truth.tree and answer.tree:
            return _quantities(truth, answer, terms)
        ours, theirs = Tree("-", args=answer.trees), Tree("-", args=truth.trees)
        if same(theirs, ours) or proportional(theirs, ours):
            return True, "the same equation"
        return False, "another equation"
    if truth.tree is None or answer.tree is None:
        return False, "one is an equation"
    return _quantities(truth, answer, terms)


def _quantities(truth: Answer, answer: Answer, terms: Terms) -> tuple[bool, str]:
    assert truth.tree is not None and answer.tree is not None
    if truth.label.startswith("base") or answer.label.startswith("base"):
        return _in_bases(truth, answer)
    ours, theirs = answer.unit, truth.unit
    plain = same(truth.tree, answer.tree, terms.tolerance)
    if terms.units == "ignore":
        return plain, "compared without units"
    if terms.units == "exact" and ours.dimensions != theirs.dimensions:
        return False, "the unit is not the truth's"
    if ours.share or theirs.share:
        return _shares(truth, answer, plain, terms)
    if ours.contradicts(theirs):
        if {ours.dimensions, theirs.dimensions} == {(("angle", 1),), (("share", 1),)}:
            return False, "another unit"
        return False, "the units contradict each other"
    if ours.dimensions and theirs.dimensions:
        rounding = max(terms.tolerance, 1e-9)
        return same(_sized(truth), _sized(answer), rounding), "compared in one unit"
    if ours.angle or theirs.angle:
        radians = _sized(truth), _sized(answer)
        turned = same(radians[0], radians[1], terms.tolerance)
        return plain or turned, "degrees or radians"
    if "compound" in (truth.label, answer.label):
        return False, "several units where the other has none"
    why = "compared exactly" if exact(truth.tree) is not None else "compared by value"
    return plain, why


def _sized(side: Answer) -> Tree:
    """The number in the basic unit."""
    assert side.tree is not None
    size: Fraction = side.unit.size
    factor = Tree(
        "/", args=(number(str(size.numerator)), number(str(size.denominator)))
    )
    tree = Tree("*", args=(side.tree, factor))
    if side.unit.turns:
        tree = Tree("*", args=(tree, Tree("pi")))
    return tree


def _shares(
    truth: Answer, answer: Answer, plain: bool, terms: Terms
) -> tuple[bool, str]:
    """`50 %` is 0.5; the sign may be left out where the number cannot be a share itself."""
    if truth.unit == answer.unit:
        return plain, "both in percent"
    if truth.unit.dimensions and answer.unit.dimensions:
        return False, "the units contradict each other"
    assert truth.tree is not None and answer.tree is not None
    if same(_sized(truth), _sized(answer), terms.tolerance):
        return True, "percent by its value"
    bare = truth if answer.unit.share else answer
    value = exact(bare.tree) if bare.tree else None
    large = value is not None and abs(value) >= 1
    return plain and large, "percent by its number"


def _in_bases(truth: Answer, answer: Answer) -> tuple[bool, str]:
    """Numbers written in a base: by value; the truth's base may be left out."""
    values = []
    for side in (truth, answer):
        base = int(side.label.removeprefix("base ") or 10) if side.label else 10
        try:
            values.append(int(side.text.partition("_")[0], base))
        except ValueError:
            raise Worthless("no number of its base") from None
    if truth.label and not answer.label:
        digits = truth.text.partition("_")[0]
        return digits == answer.text, "the digits of the truth's base"
    return values[0] == values[1], "compared by value"
