"""What formulas are worth, and whether two are worth the same: exactly where both are
rational, else to 40 digits, with symbols at several points.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from alignkit.grading.answer.tree import Tree

MAX_BITS = 200_000  # of an exact number
MAX_LOG = 1e7  # of a number that is not exact: the power of 2
MAX_FACTORIAL = 5_000  # exact
DIGITS = 40
_SAME = 1e-25  # relative
# for symbols: nothing special happens there, and one is below zero
_POINTS = (
    ("0.7390851332151607", "1.6180339887498949", "2.2360679774997897"),
    ("-1.3247179572447460", "0.5671432904097838", "3.3598856662431775"),
    ("2.5029078750958928", "-0.9159655941772190", "1.2020569031595943"),
)


class Worthless(ArithmeticError):
    """No finite value, or one beyond the bounds."""


def exact(tree: Tree) -> Fraction | None:
    """The value as a rational number; None when it is not one.

    Raises:
        Worthless: a number beyond the bounds, a division by zero.
    """
    if tree.kind == "number":
        return _number(tree.text)
    args = [exact(arg) for arg in tree.args]
    if not args or None in args:
        return None
    first, *rest = (arg for arg in args if arg is not None)
    if tree.kind == "neg":
        return -first
    if tree.kind in ("!", "!!"):
        return _factorial(first, len(tree.kind))
    if tree.kind == "abs":
        return abs(first)
    if tree.kind == "floor":
        return Fraction(math.floor(first))
    if tree.kind == "ceil":
        return Fraction(math.ceil(first))
    if tree.kind == "^":
        return _power(first, rest[0])
    if tree.kind == "root":
        return _root(first, rest[0])
    if tree.kind == "binom":
        return _binomial(first, rest[0])
    if tree.kind not in ("+", "-", "*", "/"):
        return None
    second = rest[0]
    if tree.kind == "/" and not second:
        raise Worthless("a division by zero")
    operation = {
        "+": first.__add__,
        "-": first.__sub__,
        "*": first.__mul__,
        "/": first.__truediv__,
    }[tree.kind]
    value = operation(second)
    if _bits(value) > MAX_BITS:
        raise Worthless("a number too long")
    return value


def _number(text: str) -> Fraction:
    digits, _, block = text.partition("|")
    mantissa, _, exponent = digits.lower().partition("e")
    if len(text) > 5_000 or abs(int(exponent or 0)) > 5_000:
        raise Worthless("a number too long")
    value = Fraction(f"{mantissa}e{exponent or 0}")
    if not block:
        return value
    places = len(mantissa.partition(".")[2])
    return value + Fraction(int(block), (10 ** len(block) - 1) * 10**places)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        root = _root(Fraction(exponent.denominator), base)
        return None if root is None else _power(root, Fraction(exponent.numerator))
    if not base and exponent < 0:
        raise Worthless("a division by zero")
    if abs(base) not in (0, 1) and _bits(base) * abs(exponent) > MAX_BITS:
        return None
    return base ** int(exponent)


def _root(index: Fraction, value: Fraction) -> Fraction | None:
    """Where it is rational."""
    if index.denominator != 1 or not 1 <= index <= 64 or _bits(value) > 4_000:
        return None
    degree = int(index)
    if value < 0 and degree % 2 == 0:
        return None
    parts = [
        _whole_root(abs(value.numerator), degree),
        _whole_root(value.denominator, degree),
    ]
    if None in parts:
        return None
    root = Fraction(parts[0] or 0, parts[1] or 1)
    return -root if value < 0 else root


def _whole_root(value: int, degree: int) -> int | None:
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < value:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == value else None


def _factorial(value: Fraction, step: int) -> Fraction | None:
    if value.denominator != 1 or value < 0 or value > MAX_FACTORIAL:
        return None
    return Fraction(math.prod(range(int(value), 1, -step)))


def _binomial(upper: Fraction, lower: Fraction) -> Fraction | None:
    whole = upper.denominator == lower.denominator == 1
    if not whole or not 0 <= lower <= upper <= MAX_FACTORIAL:
        return None
    return Fraction(math.comb(int(upper), int(lower)))


def same(one: Tree, other: Tree, tolerance: float = 0.0) -> bool:
    """Whether both are worth the same, with every symbol at every point; `tolerance` is
    relative, of numbers.

    Raises:
        Worthless: that cannot be told.
    """
    if one == other:
        return True
    values = exact(one), exact(other)
    if values[0] is not None and values[1] is not None:
        gap = abs(values[0] - values[1])
        return not gap or gap <= Fraction(tolerance) * abs(values[0])
    names = sorted(one.symbols() | other.symbols())
    compared = 0
    for point in _POINTS if names else _POINTS[:1]:
        places = {name: _place(point, number) for number, name in enumerate(names)}
        pair = [_at(tree, places) for tree in (one, other)]
        if None in pair or (names and _real(pair[0]) != _real(pair[1])):
            continue  # outside the domain of one
        compared += 1
        if not _close(one, other, places, pair, tolerance):
            return False
    if not compared:
        raise Worthless("no value at any point")
    return True


def proportional(one: Tree, other: Tree) -> bool:
    """Whether one is a constant, not 0, times the other.

    Raises:
        Worthless: that cannot be told.
    """
    names = sorted(one.symbols() | other.symbols())
    ratios = []
    for point in _POINTS:
        places = {name: _place(point, number) for number, name in enumerate(names)}
        first, second = _at(one, places), _at(other, places)
        if first is None or second is None:
            continue
        if not first or not second:
            return False
        ratios.append(first / second)
    if len(ratios) < 2:
        raise Worthless("no value at two points")
    return all(abs(ratio - ratios[0]) <= _SAME * abs(ratios[0]) for ratio in ratios)


def _place(point: tuple[str, ...], number: int) -> Any:
    import mpmath

    return mpmath.mpf(point[number % len(point)]) + number // len(point)


def _real(value: Any) -> bool:
    import mpmath

    return bool(mpmath.im(value) == 0)


def _close(
    one: Tree, other: Tree, places: dict[str, Any], pair: list[Any], tolerance: float
) -> bool:
    import mpmath

    first, second = pair
    if first == second:
        return True
    size = max(abs(first), abs(second))
    if not mpmath.isfinite(size):
        return False
    gap = abs(first - second)
    if gap <= max(_SAME, tolerance) * size:
        return True
    if size > mpmath.mpf(10) ** -(DIGITS // 2):
        return False
    # zeros by cancellation shrink with the precision, small numbers do not
    finer = [_at(tree, places, 3 * DIGITS) for tree in (one, other)]
    return all(
        v is not None and abs(v) < size * mpmath.mpf(10) ** -DIGITS for v in finer
    )


def _at(tree: Tree, places: dict[str, Any], digits: int = DIGITS) -> Any:
    """The value with symbols at their places; None where there is none."""
    import mpmath

    with mpmath.workdps(digits):
        try:
            return _evaluate(tree, places)
        except (ZeroDivisionError, ValueError, mpmath.libmp.NoConvergence):
            return None


def _evaluate(tree: Tree, places: dict[str, Any]) -> Any:
    import mpmath

    kind = tree.kind
    if kind == "number":
        value = _number(tree.text)
        return mpmath.mpf(value.numerator) / value.denominator
    if kind == "symbol":
        return places[tree.text]
    constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.j, "infinity": mpmath.inf}
    if kind in constants:
        return +constants[kind]
    if kind == "degree":
        return mpmath.pi / 180
    args = [_evaluate(arg, places) for arg in tree.args]
    if kind == "^":
        return _raise(*args)
    if kind in ("!", "!!"):
        if not abs(args[0]) <= 1e7:
            raise Worthless("a factorial too large")
        return (mpmath.factorial if kind == "!" else mpmath.fac2)(args[0])
    operations = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "neg": lambda a: -a,
        "abs": abs,
        "floor": mpmath.floor,
        "ceil": mpmath.ceil,
        "binom": mpmath.binomial,
        "root": _nth_root,
        "log": lambda base, a: mpmath.log(a) / mpmath.log(base),
        "ln": mpmath.log,
        "exp": lambda a: _raise(+mpmath.e, a),
        "arcsin": mpmath.asin,
        "arccos": mpmath.acos,
        "arctan": mpmath.atan,
    }
    operation = operations.get(kind) or getattr(mpmath, kind)
    return operation(*args)


def _raise(base: Any, exponent: Any) -> Any:
    import mpmath

    if base and mpmath.isfinite(base) and abs(base) != 1:
        size = abs(mpmath.log(base)) * abs(exponent)
        if not size <= MAX_LOG:
            raise Worthless("a power too large")
    return base**exponent


def _nth_root(index: Any, value: Any) -> Any:
    """Odd roots of numbers below zero are real."""
    import mpmath

    if index == 2:
        return mpmath.sqrt(value)
    odd = index == mpmath.floor(index) and index % 2 == 1
    if odd and _real(value) and value < 0:
        return -_raise(-value, 1 / index)
    return _raise(value, 1 / index)
