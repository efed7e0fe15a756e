"""Tests over questions, for these very models.

Shapes: S seeds (runs) of a variant, Q questions all runs answered.
"""

from __future__ import annotations

import numpy as np

from alignkit.report.intervals import (
    LEVEL,
    ROUNDING,
    Interval,
    Values,
    binary,
    constant,
)

# Pairs beyond which the sum under random signs is normal to more digits than the
# permutations, of which there are thousands, could tell.
MANY = 20_000


def question_test(
    base: Values, other: Values, resamples: int, rng_seed: int
) -> tuple[str, float | None]:
    """The name and the p of the test: see `stats.compare`."""
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
    if differ.sum() > MANY:
        z = (b - a).sum() / np.sqrt(((b - a) ** 2).sum())
        return "sign-flip, normal limit", float(2 * stats.norm.sf(abs(z)))
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
    """The BCa interval (Efron 1987) of the mean difference, questions resampled; None
    where every resample would be the same.

    The acceleration is that of a mean, in closed form: the jackknife, which scipy
    computes mean by mean, takes the square of the questions.
    """
    from scipy import stats
    from scipy.special import ndtr, ndtri

    differences = b - a
    if len(a) < 2 or constant(differences):
        return None
    drawn = stats.bootstrap(
        (differences,),
        np.mean,
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(len(a)),
        method="percentile",
        rng=np.random.default_rng(rng_seed),
    ).bootstrap_distribution
    mean = differences.mean()
    below = ((drawn < mean).mean() + (drawn <= mean).mean()) / 2
    apart = differences - mean
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    tail = (1 - LEVEL) / 2
    shifted = ndtri(below) + ndtri([tail, 1 - tail])
    with np.errstate(invalid="ignore"):
        ends = ndtr(ndtri(below) + shifted / (1 - acceleration * shifted))
    if np.isnan(ends).any():  # all resamples on one side
        return None
    low, high = np.percentile(drawn, 100 * ends)
    return Interval(float(low), float(high), "questions")


def _batch(questions: int) -> int:
    """Resamples drawn at once, so that memory stays near 16 MB whatever the number of
    questions.
    """
    return max(1, 2_000_000 // questions)
