"""What a field of a TRL config needs to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNSURE = object()  # a value that is known only where the recipe runs (`engine: auto`)


@dataclass(frozen=True, slots=True)
class Needed:
    """What a setting must be: one of `values` (with `none_of` another than these), or
    more than `above`. Of a list one item counts.
    """

    values: tuple[Any, ...] = ()
    none_of: bool = False
    above: int | None = None

    def holds(self, value: Any) -> bool:
        """Whether a setting's value will do."""
        if value is UNSURE:
            return True
        if self.above is not None:
            return bool(value > self.above)
        listed = value if isinstance(value, list | tuple) else [value]
        return any(item in self.values for item in listed) is not self.none_of

    def words(self, key: str) -> str:
        """The need as an error says it."""
        if self.above is not None:
            return f"{key} above {self.above}"
        named = [word(value) for value in self.values]
        text = " or ".join(
            [", ".join(named[:-1]), named[-1]] if len(named) > 1 else named
        )
        if not self.none_of:
            return f"{key}: {text}"
        return f"{key} stated" if self.values == (None,) else f"{key} other than {text}"


@dataclass(frozen=True, slots=True)
class Row:
    """Fields of some methods, and what must hold for them to be read. `never` says why
    nothing reads them at all.
    """

    methods: tuple[str, ...]
    fields: tuple[str, ...]
    needs: Mapping[str, Needed] = field(default_factory=dict)
    never: str = ""


def one_of(*values: Any) -> Needed:
    """One of some values."""
    return Needed(values)


def none_of(*values: Any) -> Needed:
    """Another value than these."""
    return Needed(values, none_of=True)


def word(value: Any) -> str:
    """A value as a recipe writes it."""
    words: Iterable[tuple[Any, str]] = (
        (None, "not stated"),
        (True, "true"),
        (False, "false"),
    )
    for known, word in words:
        if value is known:
            return word
    return (
        ", ".join(map(str, value)) or "empty"
        if isinstance(value, list | tuple)
        else str(value)
    )
