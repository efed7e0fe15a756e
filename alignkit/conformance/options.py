"""The numeric options of a plugin function."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def numeric_options(function: Callable[..., object]) -> dict[str, float]:
    """Keyword-only parameters whose default is a number, with it."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
    }
