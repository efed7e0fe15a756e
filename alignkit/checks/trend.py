"""Windows and slopes of a series, with their standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from alignkit.checks.finding import Lacking
from alignkit.records import Record

WINDOW = 10  # logged steps


def series(record: Record, name: str, least: int = 1) -> tuple[list[int], list[float]]:
    """Steps and finite values of a metric.

    Raises:
        Lacking: it was logged fewer than `least` times.
    """
    steps, values = record.series(name)
    pairs = [
        (step, value)
        for step, value in zip(steps, values, strict=True)
        if math.isfinite(value)
    ]
    if len(pairs) < least:
        raise Lacking(f"{least} logged values of {name}; the run has {len(pairs)}")
    return [step for step, _ in pairs], [value for _, value in pairs]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def median(values: Sequence[float]) -> float:
    import statistics

    return statistics.median(values)


def noise(values: Sequence[float]) -> float:
    """Standard deviation of one value about a slow trend, from the differences of
    neighbours.
    """
    pairs = itertools.pairwise(values)
    squares = [(after - before) ** 2 for before, after in pairs]
    return math.sqrt(mean(squares) / 2) if squares else math.inf


def slope(values: Sequence[float]) -> tuple[float, float]:
    """Least squares over the index: change per logged step, and its standard error."""
    count = len(values)
    if count < 3:
        return 0.0, math.inf
    centre, level = (count - 1) / 2, mean(values)
    spread = math.fsum((i - centre) ** 2 for i in range(count))
    rise = math.fsum((i - centre) * (v - level) for i, v in enumerate(values)) / spread
    rest = math.fsum(
        (v - level - rise * (i - centre)) ** 2 for i, v in enumerate(values)
    )
    return rise, math.sqrt(rest / (count - 2) / spread)


def rises(values: Sequence[float], sign: int = 1) -> bool:
    """Whether the slope is beyond two standard errors."""
    rise, spread = slope(values)
    return sign * rise > 2 * spread


def best_window(values: Sequence[float], size: int = WINDOW) -> tuple[int, float]:
    """Where the largest mean of `size` values in a row begins, and that mean."""
    starts = range(max(1, len(values) - size + 1))
    means = [mean(values[start : start + size]) for start in starts]
    start = max(starts, key=means.__getitem__)
    return start, means[start]
