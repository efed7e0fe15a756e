"""The numbers behind learning curves: a metric over steps, tokens or wall clock, over a
variant's seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignkit.report.collect import Variant
from alignkit.report.intervals import Values
from alignkit.report.runs import RunData, is_number

SMOOTHED = 60  # a training curve of more points is shown as a running mean


@dataclass(frozen=True)
class Curve:
    """A variant's mean over seeds by step; `low` and `high` are None where nothing was
    repeated.
    """

    x: Values
    y: Values
    low: Values | None
    high: Values | None


def curve(variant: Variant, metric: str, axis: str) -> Curve | None:
    """The curve over the steps that all of the variant's runs logged; None where there
    is none, or no such axis.
    """
    runs = variant.runs or variant.collapsed  # where all collapsed, the curves show how
    points = [_points(run, metric) for run in runs]
    steps = sorted(set.intersection(*map(set, points)))
    if not steps:
        return None
    x = np.mean([_positions(run, steps, axis) for run in runs], axis=0)
    if x[-1] == 0 < steps[-1]:
        return None  # the runs did not count what this axis shows
    values = np.array([[by_step[step][0] for step in steps] for by_step in points])
    if not metric.startswith("eval/"):
        values = _running_mean(values)
    low = high = None
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
    elif all(bounds is not None for _, bounds in points[0].values()):
        low, high = np.array([points[0][step][1] for step in steps], dtype=float).T
    return Curve(x, values.mean(axis=0), low, high)


def _points(
    run: RunData, metric: str
) -> dict[int, tuple[float, tuple[float, float] | None]]:
    """By step: the value, and the interval over questions where the metric is an eval's
    main one.

    A resumed run logs some steps again; the last time counts.
    """
    points: dict[int, tuple[float, tuple[float, float] | None]] = {
        int(row["step"]): (float(row[metric]), None)
        for row in run.rows
        if is_number(row.get(metric))
    }
    for result in run.evals:
        main = f"eval/{result.name}/{result.summary['metric']}" == metric
        if main and "low" in result.summary and "high" in result.summary:
            points[result.step] = (
                float(result.summary["value"]),
                (result.summary["low"], result.summary["high"]),
            )
    return points


def _positions(run: RunData, steps: Sequence[int], axis: str) -> Values:
    """Where steps lie on the axis; what lies between two logged rows is interpolated."""
    if axis == "step":
        return np.array(steps, dtype=float)
    counts: dict[int, float] = {0: 0.0}
    before, last = 0.0, 0.0  # a resumed run counts its seconds from zero again
    for row in run.rows:
        if not row.get(axis):  # 0 tokens: not counted at this row
            continue
        now = float(row[axis])
        if axis == "seconds" and now < last:
            before += last
        last = now
        counts[int(row["step"])] = max(before + now, counts.get(int(row["step"]), 0.0))
    return np.interp(steps, sorted(counts), [counts[step] for step in sorted(counts)])


def _running_mean(values: Values) -> Values:
    size = window(values.shape[1])
    if size == 1:
        return values
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(values, size, axis=1, mode="nearest")


def window(points: int) -> int:
    """How many points the running mean of a training curve takes; odd, 1 for a short
    curve.
    """
    if points <= SMOOTHED:
        return 1
    return 2 * round(points / SMOOTHED / 2) + 1


def logged_points(run: RunData, metric: str) -> int:
    """At how many steps the run has the metric."""
    return len(_points(run, metric))
