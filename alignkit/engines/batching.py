"""Which prompts to read together: pure functions on token ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Ids = Sequence[int]


def common_prefix(first: Ids, second: Ids) -> int:
    """How many tokens two sequences begin with alike."""
    return next(
        (k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def shared_prefix(batch: Sequence[Ids]) -> int:
    """How many tokens all sequences of the batch begin with alike, each keeping at
    least one of its own.
    """
    return min(
        common_prefix(min(batch, key=tuple), max(batch, key=tuple)),
        min(map(len, batch)) - 1,
    )


def reading_order(encoded: Sequence[Ids], batch_size: int) -> list[int]:
    """Indices in the order that costs the fewest tokens when each batch reads its
    shared prefix once.

    Either by falling length, so that little is padded, or (few-shot prompts) with equal
    beginnings together, by falling length within each such run.
    """
    by_length = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    alphabetic = sorted(range(len(encoded)), key=lambda i: tuple(encoded[i]))
    runs: list[list[int]] = [alphabetic[:1]]
    for before, index in pairwise(alphabetic):
        alike = common_prefix(encoded[before], encoded[index])
        if 2 * alike < min(len(encoded[before]), len(encoded[index])):
            runs.append([])
        runs[-1].append(index)
    by_beginning = [
        index for run in runs for index in sorted(run, key=lambda i: -len(encoded[i]))
    ]

    def cost(order: list[int]) -> int:
        total = 0
        for start in range(0, len(order), batch_size):
            batch = [encoded[i] for i in order[start : start + batch_size]]
            prefix = shared_prefix(batch)
            total += prefix + len(batch) * (max(map(len, batch)) - prefix)
        return total

    return min(by_length, by_beginning, key=cost)
