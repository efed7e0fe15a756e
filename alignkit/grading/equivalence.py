"""Do an answer and a truth mean the same: the stages, cheapest first."""

from __future__ import annotations

import re

from alignkit.grading.expression import Node, Unparsable, parse
from alignkit.grading.normalize import is_integer, strip_thousands
from alignkit.grading.values import TooLarge, approximate, exact, to_sympy

_BRACKETS = "()[]"
_FRACTION = re.compile(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$")
_REFUSED_POWERS = re.compile(r"\^\(|\^\{|\^[0-9]+\^|\^[0-9][0-9]")
# where symbols are sampled: nothing special happens there
_POINTS = (0.7390851, 1.6180339, 2.2360679)


def same_expression(truth: str, answer: str) -> tuple[bool, str]:
    """Whether two PRM800K-normalised texts are equal as mathematics, and why.

    The published rules: tuples agree in length and brackets; an unreduced fraction is
    wrong; an integer wants an integer; at most two different letters; exponents of one
    digit.
    """
    if not answer:
        return False, "the answer is empty"
    truths, answers = _elements(truth), _elements(answer)
    if len(truths) > 1 and (truth[0] != answer[0] or truth[-1] != answer[-1]):
        return False, "the brackets differ"
    if len(truths) != len(answers):
        return False, f"{len(answers)} elements where the truth has {len(truths)}"
    reason = "nothing to compare"
    for expected, given in zip(truths, answers, strict=True):
        same, reason = _same_element(expected, given)
        if not same:
            return False, reason
    return bool(truths), reason


def _elements(text: str) -> list[str]:
    """The elements of a tuple or interval, or the text itself."""
    text = strip_thousands(text)
    if not text:
        return []
    if (
        len(text) > 2
        and text[0] in _BRACKETS
        and text[-1] in _BRACKETS
        and not any(c in text[1:-1] for c in _BRACKETS)
    ):
        return [element.strip() for element in text[1:-1].split(",")]
    return [text]


def _same_element(truth: str, answer: str) -> tuple[bool, str]:
    if _FRACTION.search(truth) and _FRACTION.search(answer):
        return truth == answer, "fractions are compared as written"
    if is_integer(truth) != is_integer(answer):
        return False, "one is an integer and the other is not"
    letters = {
        letter
        for letter in f"{truth} {answer}".replace("sqrt", "").replace("frac", "")
        if letter.isalpha()
    }
    if len(letters) > 2:
        return False, "more than two different letters"
    if _REFUSED_POWERS.search(truth) or _REFUSED_POWERS.search(answer):
        return False, "a power that is not evaluated"
    return equal_plain(truth, answer)


def equal_plain(truth: str, answer: str) -> tuple[bool, str]:
    """Whether two plain expressions are equal: exactly, by refutation at sample points,
    at last by sympy.
    """
    try:
        trees = parse(truth), parse(answer)
    except Unparsable as error:
        return False, f"not an expression: {error}"
    if trees[0] == trees[1]:
        return True, "the same expression"
    try:
        values = exact(trees[0]), exact(trees[1])
        if values[0] is not None and values[1] is not None:
            return values[0] == values[1], "compared as rational numbers"
        if any(_differ(*trees, point) for point in range(3)):
            return False, "the values differ"
        return _sympy_equal(*trees), "simplified the difference"
    except TooLarge as error:
        return False, f"out of bounds: {error}"
    except ZeroDivisionError:
        return False, "division by zero"


def _differ(truth: Node, answer: Node, point: int) -> bool:
    """Whether the values at a sample point are surely different; False where this
    cannot be told.
    """
    names = sorted(_symbols(truth) | _symbols(answer))
    symbols = {
        name: _POINTS[(point + index) % 3] + index for index, name in enumerate(names)
    }
    try:
        (a, a_error), (b, b_error) = (
            approximate(truth, symbols),
            approximate(answer, symbols),
        )
    except (ArithmeticError, ValueError):
        return False
    return abs(a - b) > 16 * (a_error + b_error) + 1e-12 * (abs(a) + abs(b))


def _symbols(node: Node) -> set[str]:
    if node.kind == "symbol":
        return {node.text}
    return set().union(*map(_symbols, node.args)) if node.args else set()


def sympy_errors() -> tuple[type[Exception], ...]:
    """What sympy raises on expressions it cannot handle. Running out of memory is not
    among these.
    """
    from sympy.polys.polyerrors import BasePolynomialError

    return (
        ArithmeticError,
        AssertionError,
        AttributeError,
        BasePolynomialError,
        LookupError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    )


def _sympy_equal(truth: Node, answer: Node) -> bool:
    import sympy

    try:
        return bool(sympy.simplify(to_sympy(truth) - to_sympy(answer)) == 0)
    except TooLarge:
        raise
    except sympy_errors():
        return False
