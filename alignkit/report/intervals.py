"""Confidence intervals of means: over questions and over seeds.

Shapes: S seeds (runs) of a variant, Q questions all runs answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Values = NDArray[Any]
Covers = Literal["questions", "seeds", "questions and seeds"]
LEVEL = 0.95
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float
    covers: Covers


def mean_interval(values: Values) -> Interval | None:
    """The interval of `values.mean()` for (S, Q) scores: Student's t over seeds; for
    one seed over questions, by Wilson (1927) when every score is 0 or 1, else by
    Student's t. None when nothing varies that could be measured.
    """
    from statsmodels.stats.proportion import proportion_confint

    seeds, questions = values.shape
    if seeds > 1:
        return _t_interval(values.mean(axis=1), "seeds")
    if binary(values):
        low, high = proportion_confint(
            values.sum(), questions, alpha=1 - LEVEL, method="wilson"
        )
        return Interval(float(low), float(high), "questions")
    return _t_interval(values[0], "questions")


def seeds_interval(values: Values) -> Interval | None:
    """The t-interval over seeds for one number per seed, (S,); None for a single seed."""
    return _t_interval(values, "seeds") if len(values) > 1 else None


def binary(values: Values) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def constant(values: Values) -> bool:
    """No spread but rounding, which must never pass for a tiny variance."""
    return bool(values.max() - values.min() < ROUNDING)


def _t_interval(values: Values, covers: Covers) -> Interval | None:
    from statsmodels.stats.weightstats import DescrStatsW

    if constant(values):
        return None
    low, high = DescrStatsW(values).tconfint_mean(alpha=1 - LEVEL)
    return Interval(float(low), float(high), covers)
