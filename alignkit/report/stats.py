"""Intervals and tests for comparing runs; every number comes from scipy or statsmodels.

Shapes: S seeds (runs) of a variant, Q questions all runs answered. `values` is (S, Q),
each entry the mean score of one question over its samples, so that a variant's result
is `values.mean()`.

An interval or test covers only what it resamples, and says so in `covers`:

- `seeds`: other seeds, the same questions;
- `questions`: other questions, these very models (nothing is said of a model trained
    again);
- `questions and seeds`: both, which is what a claim about a recipe needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignkit.report import questions
from alignkit.report.intervals import (
    LEVEL,
    ROUNDING,
    Covers,
    Interval,
    Values,
    constant,
)

POWER = 0.80


@dataclass(frozen=True, slots=True)
class Difference:
    """Variant minus base. `interval`, `test` and `p` are the widest claim that the data
    allow (`covers`).

    `bootstrap` and `p_questions` are over questions for these very models, whatever the
    number of seeds; `p_seeds` is Welch's t-test over seeds. None stands for what the
    data cannot give.
    """

    value: float
    interval: Interval | None
    test: str
    p: float | None
    covers: Covers | None
    # standard error behind `p`, and its degrees of freedom: what the power depends on
    se: float
    df: float
    bootstrap: Interval | None = None
    test_questions: str = ""
    p_questions: float | None = None
    p_seeds: float | None = None


def compare(
    base: Values, other: Values, *, resamples: int = 9999, rng_seed: int = 0
) -> Difference:
    """The difference in mean score between two variants on the same questions: (S, Q)
    and (S', Q).

    Over questions: the paired bootstrap (BCa, questions resampled, each question's mean
    over seeds kept together) and McNemar's exact test; where scores are not all 0 or 1,
    as with several seeds or samples per question, its generalisation, the sign-flip
    permutation test on the questions' mean differences. Over seeds: Welch's t-test on
    the seeds' means (seeds are not paired: a seed shared by two recipes does not make
    their runs alike, and if it does the test errs on the safe side). Over both,
    wherever both variants have two seeds or more: min F' of Clark (1973), whose
    variance is the sum of the two, with Satterthwaite's degrees of freedom. It counts
    the residual noise twice and so errs on the safe side. With fewer seeds only the
    test over questions is left.
    """
    from scipy import stats

    differences = other.mean(axis=0) - base.mean(axis=0)
    value, count = float(differences.mean()), len(differences)
    bootstrap = questions.bootstrap(
        base.mean(axis=0), other.mean(axis=0), resamples, rng_seed
    )
    test, p_questions = questions.question_test(base, other, resamples, rng_seed)
    se_questions = 0.0
    if not constant(differences):
        se_questions = float(stats.sem(differences))
    over_questions = Difference(
        value,
        bootstrap,
        test,
        p_questions,
        "questions",
        se_questions,
        count - 1,
        bootstrap,
        test,
        p_questions,
    )
    if min(len(base), len(other)) < 2 or count < 2:
        return over_questions
    se_seeds, df_seeds, p_seeds = _welch(base.mean(axis=1), other.mean(axis=1))
    se = float(np.hypot(se_questions, se_seeds))
    over_both = replace(over_questions, se=se, df=0.0, p_seeds=p_seeds)
    # every question and every seed differs by the same: only the signs can be tested
    if se == 0:
        return replace(over_both, interval=None, bootstrap=None)
    df = se**4 / (se_questions**4 / (count - 1) + se_seeds**4 / df_seeds)
    low, high = stats.t.interval(LEVEL, df, loc=value, scale=se)
    return replace(
        over_both,
        interval=Interval(float(low), float(high), "questions and seeds"),
        test="min F'",
        p=float(stats.f.sf((value / se) ** 2, 1, df)),
        covers="questions and seeds",
        df=df,
    )


def compare_seeds(base: Values, other: Values) -> Difference:
    """The difference of a metric that has one number per seed, (S,) and (S',), such as
    a training reward.
    """
    from scipy import stats

    value = float(other.mean() - base.mean())
    if min(len(base), len(other)) < 2:
        return Difference(value, None, "none: one seed", None, None, 0.0, 0.0)
    se, df, p = _welch(base, other)
    interval = None
    if se > 0:
        low, high = stats.t.interval(LEVEL, df, loc=value, scale=se)
        interval = Interval(float(low), float(high), "seeds")
    return Difference(value, interval, "Welch's t", p, "seeds", se, df, p_seeds=p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) correction over all the comparisons made; tests that could not be
    made stay None.
    """
    from statsmodels.stats.multitest import multipletests

    tested = [place for place, p in enumerate(p_values) if p is not None]
    if not tested:
        return list(p_values)
    _, corrected, *_ = multipletests(
        [p_values[place] for place in tested], alpha=1 - LEVEL, method="holm"
    )
    by_place = dict(zip(tested, map(float, corrected), strict=True))
    return [by_place.get(place) for place in range(len(p_values))]


def smallest_effect(difference: Difference, comparisons: int = 1) -> float | None:
    """The smallest true difference that these questions and seeds would show with 80 %
    power.

    Two-sided at 5 % over `comparisons` tests (the first step of Holm's procedure), with
    the variance seen in the data. None when the data show no variance at all.
    """
    from scipy import stats
    from scipy.optimize import brentq

    if not (difference.se > 0 and difference.df > 0):
        return None
    critical = stats.f.isf((1 - LEVEL) / max(comparisons, 1), 1, difference.df)

    def lacking(effect: float) -> float:
        # The noncentral F of t squared: scipy's noncentral t is nan in its far tail.
        return float(stats.ncf.sf(critical, 1, difference.df, effect**2)) - POWER

    high = 4.0
    while lacking(high) < 0:
        high *= 2
    return float(brentq(lacking, 0.0, high)) * difference.se


def verdict(value: float, p: float | None) -> str:
    """`higher`, `lower` or `no difference shown`, by the corrected p; `untested` where
    there is none.
    """
    if p is None:
        return "untested"
    if p >= 1 - LEVEL:
        return "no difference shown"
    return "higher" if value > 0 else "lower"


def _welch(base: Values, other: Values) -> tuple[float, float, float | None]:
    """(standard error, degrees of freedom, p) of the difference in means of (S,) and
    (S',); no p without variance.
    """
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    if constant(base) and constant(other):
        same = abs(base[0] - other[0]) < ROUNDING
        return 0.0, float(len(base) + len(other) - 2), 1.0 if same else None
    means = CompareMeans(DescrStatsW(other), DescrStatsW(base))
    _, p, df = means.ttest_ind(usevar="unequal")
    return float(means.std_meandiff_separatevar), float(df), float(p)
