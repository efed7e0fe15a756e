"""What an expression is worth: exactly, in floating point with an error bound, and in
sympy.

Each way refuses numbers that are too large to be worth it by `TooLarge`, so that no
text can make it run for long.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from alignkit.grading.expression import Node

if TYPE_CHECKING:
    import sympy

MAX_BITS = 40_000  # of an exact integer: 12,000 digits
MAX_FACTORIAL = 3_000
MAX_POWER = 10_000  # of a symbol
MAX_SUM_POWER = 64  # of a sum with symbols: simplifying may expand it
_EPSILON = 2.0**-52


class TooLarge(ArithmeticError):
    """A power, factorial or number beyond the bounds: not evaluated."""


def exact(node: Node) -> Fraction | None:
    """The value as a rational number; None when it is not one, or holds decimals (sympy
    compares these as floats).

    Raises:
        TooLarge: the number is beyond the bounds.
        ZeroDivisionError: the text divides by zero.
    """
    if node.kind == "integer":
        if len(node.text) * 3 > MAX_BITS or len(node.text) > 4_000:
            raise TooLarge(f"{len(node.text)} digits")
        return Fraction(int(node.text))
    args = [exact(arg) for arg in node.args]
    if None in args or not args:
        return None
    first: Fraction = args[0]  # type: ignore[assignment]
    if node.kind == "neg":
        return -first
    if node.kind in ("!", "!!"):
        return _factorial(first, node.kind)
    if len(args) == 1:
        return None
    second: Fraction = args[1]  # type: ignore[assignment]
    if node.kind == "^":
        return _exact_power(first, second)
    value = {
        "+": first.__add__,
        "-": first.__sub__,
        "*": first.__mul__,
        "/": first.__truediv__,
    }[node.kind](second)
    if _bits(value) > MAX_BITS:
        raise TooLarge(f"over {MAX_BITS} bits")
    return value


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if abs(exponent) > MAX_BITS or (
        abs(base) != 1 and base and _bits(base) * abs(exponent) > 2 * MAX_BITS
    ):
        raise TooLarge("a power too large to evaluate")
    if exponent.denominator != 1:
        return None
    return base**exponent.numerator


def _factorial(value: Fraction, kind: str) -> Fraction | None:
    if abs(value) > MAX_FACTORIAL:
        raise TooLarge("a factorial too large to evaluate")
    if value.denominator != 1 or value < 0:
        return None
    if kind == "!":
        return Fraction(math.factorial(int(value)))
    return Fraction(math.prod(range(int(value), 1, -2)))


def approximate(node: Node, symbols: Mapping[str, float]) -> tuple[complex, float]:
    """The value and a bound of its rounding error, with the symbols at the given
    values.

    Raises:
        ArithmeticError, ValueError: no finite value, or one not computable in floating
            point.
    """
    value, error = _approximate(node, symbols)
    if not (cmath.isfinite(value) and math.isfinite(error)):
        raise OverflowError("no finite value")
    return value, error + 4 * _EPSILON * abs(value)


def _approximate(node: Node, symbols: Mapping[str, float]) -> tuple[complex, float]:
    if node.kind in ("integer", "decimal"):
        return complex(float(node.text)), 0.0
    if node.kind == "symbol":
        return complex(symbols[node.text]), 0.0
    if node.kind == "pi":
        return complex(math.pi), 0.0
    a, error = approximate(node.args[0], symbols)
    if len(node.args) == 1:
        return _approximate_function(node.kind, a, error)
    b, other = approximate(node.args[1], symbols)
    if node.kind in "+-":
        return (a + b if node.kind == "+" else a - b), error + other
    if node.kind == "*":
        return a * b, abs(a) * other + abs(b) * error + error * other
    if node.kind == "/":
        return a / b, (error + abs(a / b) * other) / max(abs(b) - other, 0.0)
    if error >= abs(a) / 2 or other > 1e-3:
        raise ValueError("the base of a power is too uncertain")
    power = a**b
    if not a:
        return power, 0.0
    relative = abs(b) * error / abs(a) + abs(cmath.log(a)) * other
    return power, 2 * abs(power) * relative


def _approximate_function(kind: str, a: complex, error: float) -> tuple[complex, float]:
    if kind == "neg":
        return -a, error
    if kind in ("!", "!!"):
        if a.imag or a.real < 0 or kind == "!!":
            raise ValueError("a factorial that is not computed in floating point")
        value = math.gamma(a.real + 1)
        return (
            complex(value),
            2 * value * (1 + math.log1p(a.real)) * error + 16 * _EPSILON * value,
        )
    if error >= abs(a) / 2:
        raise ValueError("the argument of a function is too uncertain")
    if kind == "sqrt":
        return cmath.sqrt(a), error / abs(cmath.sqrt(a))
    if kind == "ln":
        return cmath.log(a), 2 * error / abs(a)
    sine = cmath.sin(a)
    return 1 / sine, 2 * error * abs(cmath.cos(a)) / abs(sine) ** 2


def to_sympy(node: Node) -> sympy.Expr:
    """The sympy expression.

    Raises:
        TooLarge: building or simplifying it might not end.
    """
    return _build(node)[0]


def _build(node: Node) -> tuple[Any, float, bool]:
    """The expression, its degree in the symbols, and whether a sum of symbols is in it."""
    import sympy

    if node.kind == "integer":
        if len(node.text) > 4_000:
            raise TooLarge(f"{len(node.text)} digits")
        return sympy.Integer(int(node.text)), 0, False
    if node.kind == "decimal":
        if len(node.text) > 1_000 or abs(int(node.text.partition("e")[2] or 0)) > 1_000:
            raise TooLarge("a decimal number too long to evaluate")
        return sympy.Float(node.text), 0, False
    if node.kind == "symbol":
        return sympy.Symbol(node.text), 1, False
    if node.kind == "pi":
        return sympy.pi, 0, False
    values, degrees, sums = zip(*(_build(arg) for arg in node.args), strict=True)
    if node.kind == "^":
        _check_power(values[0], values[1], degrees[0], sums[0])
        exponent = (
            abs(float(values[1])) if values[1].is_number and values[1].is_real else 1
        )
        return values[0] ** values[1], degrees[0] * exponent + degrees[1], any(sums)
    if node.kind in ("!", "!!"):
        if values[0].is_number and not abs(values[0]) <= MAX_FACTORIAL:
            raise TooLarge("a factorial too large to evaluate")
        return (
            (sympy.factorial if node.kind == "!" else sympy.factorial2)(values[0]),
            degrees[0],
            any(sums),
        )
    if len(values) == 1:
        functions = {
            "neg": lambda x: -x,
            "sqrt": sympy.sqrt,
            "ln": sympy.log,
            "csc": sympy.csc,
        }
        return functions[node.kind](values[0]), degrees[0], any(sums)
    a, b = values
    results = {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "/": lambda: a / b,
    }
    is_sum = any(sums) or (node.kind in "+-" and max(degrees) > 0)
    return results[node.kind](), (max if node.kind in "+-" else sum)(degrees), is_sum


def _check_power(
    base: sympy.Expr, exponent: sympy.Expr, degree: float, is_sum: bool
) -> None:
    if not exponent.is_number:
        return
    size = abs(exponent.evalf(8))
    if not size.is_Float and not size.is_Integer:
        raise TooLarge("a power that is no number")
    if degree and size * degree > (MAX_SUM_POWER if is_sum else MAX_POWER):
        raise TooLarge("a power too large to simplify")
    if (
        base.is_Rational
        and base not in (0, 1, -1)
        and _bits(Fraction(int(base.p), int(base.q))) * size > 2 * MAX_BITS
    ):
        raise TooLarge("a power too large to evaluate")
    if size > MAX_BITS:
        raise TooLarge("a power too large to evaluate")
