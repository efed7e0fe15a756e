"""Keep the rows that are worth training on, and count why the others went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alignkit.data.split import normalise, question_of
from alignkit.errors import InputError, listing

Row = Mapping[str, Any]
Duplicates = Literal["keep", "question", "response", "both"]
UNGRADED = ("timeout", "error")  # statuses that say nothing about the row


@dataclass(slots=True)
class Filter:
    """Rules that a row must meet, in this order; one that is None is not applied.

    `min_reward` reads the row's `reward` (and `status`). `finish_reasons` reads
    `finish_reason`. Lengths are in tokens, of the count given with the row.
    `duplicates` compares normalised texts and keeps the first row. `dropped` counts, by
    the first rule that a row failed.
    """

    min_reward: float | None = None
    finish_reasons: tuple[str, ...] | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    duplicates: Duplicates = "keep"
    dropped: Counter[str] = field(default_factory=Counter)

    def apply(
        self, rows: Sequence[Row], tokens: Sequence[int] | None = None
    ) -> list[Row]:
        """The rows that meet all rules, in their order.

        Raises:
            InputError: a rule reads a column that a row does not have.
        """
        seen: set[tuple[str, ...]] = set()
        kept = []
        for number, row in enumerate(rows):
            why = self._fault(row, number, None if tokens is None else tokens[number])
            if why is None and self.duplicates != "keep":
                key = self._identity(row, number)
                why = "duplicate" if key in seen else None
                seen.add(key)
            if why is None:
                kept.append(row)
            else:
                self.dropped[why] += 1
        return kept

    def _fault(self, row: Row, number: int, tokens: int | None) -> str | None:
        if self.min_reward is not None:
            reward = _column(row, "reward", number)
            if row.get("status") in UNGRADED:
                return f"not graded ({row['status']})"
            if not isinstance(reward, int | float) or not reward >= self.min_reward:
                return f"reward below {self.min_reward:g}"
        if self.finish_reasons is not None:
            reason = _column(row, "finish_reason", number)
            if reason not in self.finish_reasons:
                return f"finish reason {str(reason)[:40]}"
        if (
            tokens is not None
            and self.min_tokens is not None
            and tokens < self.min_tokens
        ):
            return f"shorter than {self.min_tokens} tokens"
        if (
            tokens is not None
            and self.max_tokens is not None
            and tokens > self.max_tokens
        ):
            return f"longer than {self.max_tokens} tokens"
        return None

    def _identity(self, row: Row, number: int) -> tuple[str, ...]:
        question = (
            (normalise(question_of(row)),)
            if self.duplicates in ("question", "both")
            else ()
        )
        if self.duplicates == "question":
            return question
        return (*question, normalise(str(_column(row, "response", number))))


def _column(row: Row, name: str, number: int) -> Any:
    if name not in row:
        has = listing(sorted(map(str, row)))
        raise InputError(
            f"row {number + 1} has no '{name}', which this filter reads; it has {has}"
        )
    return row[name]
