"""Tests over questions, for these very models.

Shapes: S seeds (runs) of a variant, Q questions all runs answered.
"""

from __future__ import annotations

import warnings

import numpy as np

from alignkit.report.intervals import (
    LEVEL,
    ROUNDING,
    Interval,
    Values,
    binary,
    constant,
)


def question_test(
    base: Values, other: Values, resamples: int, rng_seed: int
) -> tuple[str, float | None]:
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar

    if len(base) == len(other) == 1 and binary(base) and binary(other):
        a, b = base[0] == 1, other[0] == 1
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        return "McNemar exact", float(mcnemar(table, exact=True).pvalue)
    a, b = base.mean(axis=0), other.mean(axis=0)
    # equal pairs change nothing; without them small tables are enumerated exactly
    differ = abs(b - a) > ROUNDING
    if differ.sum() < 2:
        return "sign-flip permutation", 1.0
    result = stats.permutation_test(
        (b[differ], a[differ]),
        lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(len(a)),
        rng=np.random.default_rng(rng_seed),
    )
    return "sign-flip permutation", float(result.pvalue)


def bootstrap(a: Values, b: Values, resamples: int, rng_seed: int) -> Interval | None:
    from scipy import stats

    if len(a) < 2 or constant(b - a):
        # every resample would be the same: that is no measure of uncertainty
        return None
    with warnings.catch_warnings():
        # a degenerate resampling; its nan is handled below
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.bootstrap(
            (a, b),
            lambda x, y, axis: (y - x).mean(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=_batch(len(a)),
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(rng_seed),
        ).confidence_interval
    if np.isnan([low, high]).any():
        return None
    return Interval(float(low), float(high), "questions")


def _batch(questions: int) -> int:
    """Resamples drawn at once, so that memory stays near 16 MB whatever the number of
    questions.
    """
    return max(1, 2_000_000 // questions)
