"""Figures of a comparison."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit.report import looks
from alignkit.report.collect import Collection, Variant
from alignkit.report.curves import Curve, curve, logged_points, window
from alignkit.report.screen import FORCED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from alignkit.report.comparison import Comparison
    from alignkit.report.results import Result

AXES = {"step": "training step", "tokens": "tokens", "seconds": "wall clock"}
SCALES = {
    "tokens": ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1, "")),
    "seconds": ((3600, "hours"), (60, "minutes"), (1, "seconds")),
}


def write_all(
    collection: Collection, comparison: Comparison, folder: Path
) -> list[Path]:
    """Draw everything there is data for; returns the files, each as PNG and SVG.

    `curves_…` by step, tokens and wall clock, and `final_…`, for every metric compared;
    one figure each of response length, entropy and gradient norm; `panels`, all of
    these together with the reward.
    """
    variants = collection.variants
    drawn: dict[str, Figure] = {}
    with looks.style():
        for metric in comparison.metrics:
            by = [(metric, axis) for axis in AXES]
            drawn[f"curves_{_file_name(metric)}"] = curves(
                variants, by, columns=3, warning=_warning(comparison)
            )
            drawn[f"final_{_file_name(metric)}"] = final(comparison, metric)
        singles = ["train/response_length", "train/entropy", "train/grad_norm"]
        for metric in singles:
            drawn[_file_name(metric)] = curves(variants, [(metric, "step")], columns=1)
        evals = [m for m in comparison.metrics[:1] if m.startswith("eval/")]
        panel_set = ["train/reward", *evals, "train/loss", *singles]
        drawn["panels"] = curves(
            variants,
            [(m, "step") for m in panel_set],
            columns=3,
            warning=_warning(comparison),
        )
        return [
            path
            for name, figure in drawn.items()
            if figure.axes
            for path in looks.save(figure, folder / name)
        ]


def curves(
    variants: Sequence[Variant],
    panels: Sequence[tuple[str, str]],
    *,
    columns: int,
    warning: str = "",
) -> Figure:
    """One panel per (metric, axis), the axis `step`, `tokens` or `seconds`; panels
    without data are left out.

    Lines are means over seeds and bands reach from the lowest to the highest seed; of
    an eval of a single seed the band is its 95 % interval over questions.
    """
    from matplotlib.figure import Figure

    data = {
        panel: {v.label: c for v in variants if (c := curve(v, *panel))}
        for panel in dict.fromkeys(panels)
    }
    data = {panel: by_variant for panel, by_variant in data.items() if by_variant}
    columns = min(columns, len(data))
    figure = Figure(
        figsize=(6.4 if columns < 2 else 1.2 + 3.6 * columns, 0), layout="constrained"
    )
    if not data:
        return figure
    rows = -(-len(data) // columns)
    labels = [variant.label for variant in variants]
    drawn = {label for by_variant in data.values() for label in by_variant}
    lines = 0
    if len(labels) > 1:
        lines = looks.legend(figure, labels, drawn)
    figure.set_figheight(0.8 + 0.25 * lines + (2.7 if columns > 1 else 3.2) * rows)
    shared = len({metric for metric, _ in data}) == 1
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
    for axes, ((metric, axis), by_variant) in zip(
        grid.flat, data.items(), strict=False
    ):
        _draw(axes, by_variant, labels, axis)
        if not shared or axes is grid[0][0]:
            axes.set_ylabel(looks.label(metric))
    for axes in grid.flat[len(data) :]:
        figure.delaxes(axes)
    caption = _curves_caption(variants, [metric for metric, _ in data])
    looks.caption(figure, caption, warning)
    return figure


def final(comparison: Comparison, metric: str) -> Figure:
    """Each variant's value with its 95 % interval, its seeds as small circles, the base
    as a line.
    """
    from matplotlib.figure import Figure

    rows = comparison.rows
    # for the names, so that they leave the axes theirs
    width = 6.2 + 0.08 * max(len(row.label) for row in rows)
    figure = Figure(figsize=(width, 1.5 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        text = "collapsed"
        if metric in row.results:
            text = _mark(axes, place, row.results[metric], row.base)
        axes.annotate(
            text,
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    labels = [row.label + (" (base)" if row.base else "") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(looks.label(metric))
    intervals = [row.results[metric].interval for row in rows if row.results]
    covers = " or ".join(
        sorted({interval.covers for interval in intervals if interval})
    )
    caption = "no interval: one seed"
    if covers:
        caption = f"bars: 95 % intervals over {covers}"
    if any(len(row.seeds) > 1 for row in rows):
        caption += "; circles: seeds"
    looks.caption(figure, caption, _warning(comparison))
    return figure


def _mark(axes: Axes, place: int, result: Result, base: bool) -> str:
    """Draw one variant's value; returns what stands beside it."""
    look = looks.look(place)
    color = look["color"]
    if base:
        axes.axvline(result.value, color="#888888", lw=1, linestyle="--", zorder=1)
    if result.interval:
        ends = [result.interval.low, result.interval.high]
        (bar,) = axes.plot(ends, [place, place], color=color, lw=2.5, zorder=2)
        bar.set_solid_capstyle("butt")
    if len(result.by_seed) > 1:
        seeds = list(result.by_seed.values())
        heights = [place + 0.22] * len(seeds)
        axes.scatter(seeds, heights, s=20, facecolor="none", edgecolor=color, zorder=3)
    marker = look["marker"]
    axes.plot(result.value, place, marker=marker, color=color, ms=8, zorder=4)
    return f"{result.value:.3f}  {result.verdict}".rstrip()


def _draw(
    axes: Axes, by_variant: Mapping[str, Curve], order: Sequence[str], axis: str
) -> None:
    longest = max(float(c.x[-1]) for c in by_variant.values())
    size, unit = next((s for s in SCALES.get(axis, ()) if longest >= 2 * s[0]), (1, ""))
    # the base first: a broad line that the others are drawn over
    for name in sorted(by_variant, key=order.index):
        place, c = order.index(name), by_variant[name]
        look = looks.look(place)
        if c.low is not None and c.high is not None and len(c.x) == 1:
            axes.vlines(c.x / size, c.low, c.high, color=look["color"], linewidth=1.2)
        elif c.low is not None and c.high is not None:
            axes.fill_between(
                c.x / size, c.low, c.high, color=look["color"], alpha=0.15, linewidth=0
            )
        points = len(c.x) <= 25
        axes.plot(
            c.x / size,
            c.y,
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=look["linewidth"],
            marker=look["marker"] if points else None,
            markersize=4,
        )
    axes.set_xlabel(AXES[axis] + (f" ({unit})" if unit else ""))
    axes.set_xlim(0, 1.04 * longest / size if longest else None)


def _curves_caption(variants: Sequence[Variant], metrics: Sequence[str]) -> str:
    seeds = sorted({len(variant.runs or variant.collapsed) for variant in variants})
    if seeds == [1]:
        text = "one seed"
        if any(metric.startswith("eval/") for metric in metrics):
            text += "; bands: 95 % interval over questions"
    else:
        count = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
        text = f"lines: mean of {count} seeds; bands: lowest to highest seed"
    training = [metric for metric in metrics if not metric.startswith("eval/")]
    mean = max(
        (
            window(logged_points(run, m))
            for m in training
            for v in variants
            for run in v.runs
        ),
        default=1,
    )
    if mean > 1:
        text += f"; training curves: running mean of {mean} points"
    return text


def _warning(comparison: Comparison) -> str:
    return FORCED if comparison.forced else ""


def _file_name(metric: str) -> str:
    name = metric.removeprefix("eval/").removeprefix("train/")
    return re.sub(r"[^\w.-]+", "_", name)
