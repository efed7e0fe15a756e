"""The numeric options of a plugin function."""

from __future__ import annotations

import inspect
from collections.abc import Callable

# how plugins and torch refuse the value of an option
REFUSED = (ValueError, ArithmeticError, AssertionError, RuntimeError)


def numeric_options(function: Callable[..., object]) -> dict[str, float]:
    """Keyword-only parameters whose default is a number, with it."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
    }


def read(changes: Callable[..., bool], *given: object) -> bool:
    """Whether another value of an option changes something; one that is refused was
    read.
    """
    try:
        return changes(*given)
    except REFUSED:
        return True
