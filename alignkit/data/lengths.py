"""Lengths in tokens: percentiles, a histogram, and what a maximum length would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

PERCENTILES = (50, 90, 95, 99)
LONGEST_PROMPT = 0.7  # of the maximum length; training drops rows with longer prompts


def nearest_rank(ranked: Sequence[T], percent: int) -> T:
    """The smallest of the values, sorted, that at least so many percent are at most."""
    return ranked[max(0, -(-percent * len(ranked) // 100) - 1)]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one part of the rows, in tokens."""

    count: int
    mean: float
    shortest: int
    longest: int
    percentiles: dict[int, int]

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths:
        """Percentiles by nearest rank: that share of the rows is at most so long."""
        ranked = sorted(values)
        ranks = {p: nearest_rank(ranked, p) for p in PERCENTILES}
        return cls(len(ranked), sum(ranked) / len(ranked), ranked[0], ranked[-1], ranks)


def histogram(values: Sequence[int], bins: int = 12) -> list[tuple[int, int, int]]:
    """(lowest, highest, count) of up to `bins` ranges of equal width that cover all
    values.
    """
    low, high = min(values), max(values)
    width = max(1, math.ceil((high - low + 1) / bins))
    counts = [0] * math.ceil((high - low + 1) / width)
    for value in values:
        counts[(value - low) // width] += 1
    return [
        (low + i * width, low + (i + 1) * width - 1, count)
        for i, count in enumerate(counts)
    ]


def measure(
    prompts: Sequence[int], responses: Sequence[int] | None, limits: Sequence[int]
) -> dict[str, Any]:
    """Statistics of rows of (prompt, response) lengths; `responses` is None for rows
    that have none.

    For each limit: how many rows training would drop (prompt above 70 % of it) and how
    many of the others it would cut. The suggested `max_length` is the 95th percentile
    of the whole rows.
    """
    totals = (
        [p + r for p, r in zip(prompts, responses, strict=True)]
        if responses is not None
        else list(prompts)
    )
    parts = {"prompt": prompts} | (
        {"response": responses, "total": totals} if responses is not None else {}
    )
    effects = {}
    for limit in limits:
        dropped = sum(p > LONGEST_PROMPT * limit for p in prompts)
        kept = [
            t
            for p, t in zip(prompts, totals, strict=True)
            if p <= LONGEST_PROMPT * limit
        ]
        cut = sum(t > limit for t in kept)
        lost = sum(max(0, t - limit) for t in kept)
        effects[limit] = {"dropped": dropped, "cut": cut, "tokens_lost": lost}
    return {
        "rows": len(prompts),
        "lengths": {
            name: Lengths.of(values)
            for name, values in parts.items()
            if values is not None
        },
        "histogram": histogram(totals),
        "limits": effects,
        "suggested_max_length": Lengths.of(totals).percentiles[95],
    }
