"""The value of every variant under one metric, and its difference to the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignkit.errors import InputError
from alignkit.report import intervals, stats
from alignkit.report.collect import Variant
from alignkit.report.intervals import Interval, Values
from alignkit.report.stats import Difference


@dataclass(frozen=True)
class Result:
    """One variant under one metric."""

    value: float
    interval: Interval | None
    by_seed: Mapping[str, float]
    questions: int | None  # None for a metric that has no questions
    difference: Difference | None = None  # to the base; None for the base itself
    p_holm: float | None = None
    verdict: str = ""
    smallest_effect: float | None = None


def results_of(
    metric: str, variants: Sequence[Variant], notes: list[str]
) -> list[Result]:
    tables = _tables(metric, variants, notes)
    results = []
    for variant, values in zip(variants, tables, strict=True):
        questions, difference = None, None
        if values.ndim == 2:
            questions, by_seed = values.shape[1], values.mean(axis=1)
            interval = intervals.mean_interval(values)
        else:
            by_seed, interval = values, intervals.seeds_interval(values)
        if values is not tables[0] and questions:
            difference = stats.compare(tables[0], values)
        elif values is not tables[0]:
            difference = stats.compare_seeds(tables[0], values)
        seeds = {
            str(run.seed): float(value)
            for run, value in zip(variant.runs, by_seed, strict=True)
        }
        results.append(
            Result(float(values.mean()), interval, seeds, questions, difference)
        )
    return results


def _tables(metric: str, variants: Sequence[Variant], notes: list[str]) -> list[Values]:
    """Per variant its scores: (S, Q) on the common questions, or (S,) where the metric
    is no mean over questions.
    """
    evals = [[run.last_eval(metric) for run in variant.runs] for variant in variants]
    name = metric.rsplit("/", 1)[-1]
    scores = [
        [None if result is None else result.scores(name) for result in group]
        for group in evals
    ]
    if any(table is None for group in scores for table in group):
        return [
            np.array([run.final(metric) for run in variant.runs], dtype=float)
            for variant in variants
        ]
    answered = [set(table) for group in scores for table in group if table is not None]
    common, largest = sorted(set.intersection(*answered)), max(map(len, answered))
    if not common:
        raise InputError(
            f"{metric}: the runs have no common questions; evaluate them on the same"
            " data and limit"
        )
    if len(common) < largest:
        notes.append(
            f"{metric}: over the {len(common)} questions that all runs answered, of"
            f" {largest}."
        )
    steps = {result.step for group in evals for result in group if result is not None}
    if len(steps) > 1:
        notes.append(
            f"{metric}: the last evals stand at different steps, {min(steps)} to"
            f" {max(steps)}."
        )
    return [
        np.array([[table[q] for q in common] for table in group if table is not None])
        for group in scores
    ]


def correct(results: dict[str, list[Result]]) -> None:
    """Holm over every comparison of the table, then the verdicts."""
    compared = [
        (column, place, result.difference)
        for column in results.values()
        for place, result in enumerate(column)
        if result.difference
    ]
    corrected = stats.holm([difference.p for _, _, difference in compared])
    for (column, place, difference), p in zip(compared, corrected, strict=True):
        column[place] = replace(
            column[place],
            p_holm=p,
            verdict=stats.verdict(difference.value, p),
            smallest_effect=stats.smallest_effect(difference, len(compared)),
        )
