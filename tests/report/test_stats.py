"""The statistics of `align compare`, held by simulation: levels, power and coverage
with fixed random seeds.
"""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest
import scipy.stats

from alignkit.report import questions, stats
from alignkit.report.intervals import mean_interval


def simulate(
    rng, variants=2, seeds=3, questions=200, effect=0.0, seed_sd=0.15, interaction=0.3
):
    """(seeds, questions) of right and wrong answers per variant, the last one better by
    `effect` in log-odds.

    Questions differ in difficulty, every seed gives a somewhat better or worse model,
    and each variant has questions that suit it: the three kinds of noise that a claim
    about a recipe has to survive.
    """
    difficulty = rng.normal(0, 1.5, questions)
    tables = []
    for variant in range(variants):
        suits = rng.normal(0, interaction, questions)
        luck = rng.normal(0, seed_sd, (seeds, 1))
        logit = difficulty + suits + luck + (effect if variant == variants - 1 else 0.0)
        tables.append(
            (rng.random((seeds, questions)) < 1 / (1 + np.exp(-logit))).astype(float)
        )
    return tables


def verdicts(tables, resamples=99):
    differences = [
        stats.compare(tables[0], other, resamples=resamples) for other in tables[1:]
    ]
    corrected = (
        stats.holm([d.p for d in differences])
        if len(differences) > 1
        else [differences[0].p]
    )
    return [
        stats.verdict(d.value, p) for d, p in zip(differences, corrected, strict=True)
    ]


def test_equal_recipes_come_out_as_no_difference_in_all_of_several_comparisons():
    gc.freeze()  # statsmodels' multipletests collects garbage on every call
    rng = np.random.default_rng(1)
    clean = sum(
        set(verdicts(simulate(rng, variants=4))) == {"no difference shown"}
        for _ in range(100)
    )
    assert clean >= 93


def test_one_model_answering_twice_comes_out_as_no_difference():
    rng = np.random.default_rng(2)
    tables = (simulate(rng, seeds=1, seed_sd=0.0, interaction=0.0) for _ in range(100))
    assert sum(verdicts(pair) == ["no difference shown"] for pair in tables) >= 93


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_effect_of_the_stated_size_is_found_at_the_stated_power(seeds):
    quiet = {"seed_sd": 0.0, "interaction": 0.0} if seeds == 1 else {}
    rng = np.random.default_rng(3)
    pilots = [
        stats.compare(*simulate(rng, seeds=seeds, **quiet), resamples=9)
        for _ in range(100)
    ]
    size = np.median([stats.smallest_effect(pilot) for pilot in pilots])
    big = simulate(rng, seeds=200, questions=2000, effect=1.0)
    effect = size / (big[1].mean() - big[0].mean())  # near enough linear in this range
    found = (
        sum(
            verdicts(simulate(rng, seeds=seeds, effect=effect, **quiet)) == ["higher"]
            for _ in range(200)
        )
        / 200
    )
    assert 0.74 <= found <= 0.95


def test_the_interval_over_seeds_covers_the_mean_of_all_seeds():
    rng = np.random.default_rng(4)
    true, inside = 0.4, 0
    for _ in range(500):
        values = np.clip(rng.normal(true, 0.02, (3, 1)), 0, 1).repeat(4, axis=1)
        interval = mean_interval(values)
        assert interval is not None and interval.covers == "seeds"
        inside += interval.low <= true <= interval.high
    assert 0.93 <= inside / 500 <= 0.97


def test_the_interval_of_one_model_covers_its_accuracy_on_all_questions():
    rng = np.random.default_rng(5)
    intervals = [
        mean_interval((rng.random((1, 100)) < 0.1).astype(float)) for _ in range(500)
    ]
    assert {i.covers for i in intervals} == {"questions"}
    assert 0.93 <= np.mean([i.low <= 0.1 <= i.high for i in intervals]) <= 0.98


def test_the_bootstrap_over_questions_covers_the_difference_of_two_models():
    rng = np.random.default_rng(6)
    gain, inside = 0.1, 0
    for repeat in range(300):
        base = (rng.random((1, 100)) < 0.4).astype(float)
        other = np.where(
            base == 1, rng.random((1, 100)) < 0.9, rng.random((1, 100)) < 14 / 60
        ).astype(float)
        interval = stats.compare(base, other, resamples=499, rng_seed=repeat).bootstrap
        inside += interval.low <= gain <= interval.high
    assert 0.92 <= inside / 300 <= 0.98


def test_the_interval_over_questions_and_seeds_covers_at_least_at_its_level():
    rng = np.random.default_rng(7)
    big = simulate(rng, seeds=400, questions=4000, effect=0.5)
    true = big[1].mean() - big[0].mean()
    inside = 0
    for _ in range(200):
        interval = stats.compare(*simulate(rng, effect=0.5), resamples=9).interval
        assert interval.covers == "questions and seeds"
        inside += interval.low <= true <= interval.high
    assert inside / 200 >= 0.93


def test_one_seed_of_right_and_wrong_is_mcnemars_exact_test():
    base = np.array([[1.0] * 5 + [0.0] * 15])
    # eight questions gained, none lost: p = 2 / 2**8
    other = np.array([[1.0] * 13 + [0.0] * 7])
    difference = stats.compare(base, other)
    assert (difference.test, difference.covers) == ("McNemar exact", "questions")
    assert difference.p == pytest.approx(2 / 2**8)


def test_the_sign_flip_test_is_mcnemars_test_where_both_apply():
    base, other = simulate(np.random.default_rng(8), seeds=1, questions=14, effect=1.5)
    exact = stats.compare(base, other).p_questions
    generalised = stats.compare(
        np.vstack([base, base]), np.vstack([other, other])
    ).p_questions
    assert generalised == pytest.approx(exact)


def test_partial_scores_are_tested_by_sign_flips():
    difference = stats.compare(
        np.array([[0.5, 0.25, 0.75, 0.0]]), np.array([[1.0, 0.5, 1.0, 0.25]])
    )
    assert difference.test == "sign-flip permutation"
    assert difference.p == pytest.approx(2 / 2**4)


def test_identical_answers_show_no_difference_and_no_power():
    values = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    difference = stats.compare(values, values)
    assert (difference.value, difference.p, difference.interval) == (0.0, 1.0, None)
    assert stats.smallest_effect(difference) is None


def test_rounding_noise_is_not_taken_for_variance():
    values = np.full((3, 10), 0.1)
    noisy = values + np.random.default_rng(9).normal(0, 1e-16, values.shape)
    assert stats.compare(values, noisy).p == 1.0


def test_a_metric_without_questions_is_tested_over_seeds_only():
    difference = stats.compare_seeds(
        np.array([0.1, 0.2, 0.15]), np.array([0.8, 0.7, 0.75])
    )
    assert difference.covers == "seeds" and difference.p < 0.001
    assert stats.compare_seeds(np.array([0.1]), np.array([0.9])).p is None


def test_holm_multiplies_by_what_is_left_and_skips_what_was_not_tested():
    assert stats.holm([0.01, None, 0.04, 0.03]) == pytest.approx(
        [0.03, None, 0.06, 0.06]
    )
    assert stats.holm([None]) == [None]


def test_more_comparisons_need_a_larger_effect():
    difference = stats.compare(*simulate(np.random.default_rng(10)), resamples=9)
    assert (
        stats.smallest_effect(difference, 5)
        > stats.smallest_effect(difference, 1)
        > 1.96 * difference.se
    )


def test_results_are_the_same_on_every_call():
    tables = simulate(np.random.default_rng(11))
    assert stats.compare(*tables, resamples=99) == stats.compare(*tables, resamples=99)


@pytest.mark.parametrize("kind", ["binary", "means", "skewed", "ties"])
@pytest.mark.parametrize("count", [2, 3, 10, 57, 400])
def test_the_bootstrap_is_scipys_bca_with_the_acceleration_in_closed_form(kind, count):
    rng = np.random.default_rng(count)
    a, b = {
        "binary": lambda: (rng.random((2, count)) < 0.4).astype(float),
        "means": lambda: rng.random((2, count)),
        "skewed": lambda: rng.exponential(size=(2, count)) ** 2,
        "ties": lambda: rng.integers(0, 3, (2, count)) / 4,
    }[kind]()
    ours = questions.bootstrap(a, b, 999, 5)
    if np.ptp(b - a) < 1e-9:
        assert ours is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scipy.stats.bootstrap(
            (a, b),
            lambda x, y, axis: (y - x).mean(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=999,
            method="BCa",
            rng=np.random.default_rng(5),
        ).confidence_interval
    if np.isnan([theirs.low, theirs.high]).any():
        assert ours is None
    else:
        assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.06])
def test_the_normal_limit_says_what_the_permutations_say(monkeypatch, shift):
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 600)), rng.random((1, 600)) + shift
    name, exact = questions.question_test(a, b, 9999, 0)
    monkeypatch.setattr(questions, "MANY", 100)
    other, limit = questions.question_test(a, b, 9999, 0)
    assert (name, other) == ("sign-flip permutation", "sign-flip, normal limit")
    assert limit == pytest.approx(exact, abs=0.02)
