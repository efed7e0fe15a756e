"""Figures of a comparison, PNG and SVG. Colours are Okabe and Ito's (2008), which the
colour-blind can tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.report.collect import Collection, Variant
from alignkit.report.curves import Curve, curve, logged_points, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from alignkit.report.comparison import Comparison

BASE = "#000000"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
MARKERS = ("s", "^", "D", "v", "P", "X")
LABELS = {
    "train/reward": "training reward",
    "train/loss": "loss",
    "train/response_length": "response length (tokens)",
    "train/entropy": "entropy (nats per token)",
    "train/grad_norm": "gradient norm",
}
AXES = {"step": "training step", "tokens": "tokens", "seconds": "wall clock"}
SCALES = {
    "tokens": ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1, "")),
    "seconds": ((3600, "hours"), (60, "minutes"), (1, "seconds")),
}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#555555",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "text.parse_math": False,  # a name is no formula
    "svg.hashsalt": "alignkit",  # the same comparison gives the same file
}


def write_all(collection: Collection, found: Comparison, folder: Path) -> list[Path]:
    """Draw everything there is data for; returns the files, each as PNG and SVG.

    `curves_…` by step, tokens and wall clock, and `final_…`, for every metric compared;
    one figure each of response length, entropy and gradient norm; `panels`, all of
    these together with the reward.
    """
    variants = collection.variants
    drawn: dict[str, Figure] = {}
    with _style():
        for metric in found.metrics:
            by = [(metric, axis) for axis in AXES]
            drawn[f"curves_{_file_name(metric)}"] = curves(
                variants, by, columns=3, warning=_warning(found)
            )
            drawn[f"final_{_file_name(metric)}"] = final(found, metric)
        singles = ["train/response_length", "train/entropy", "train/grad_norm"]
        for metric in singles:
            drawn[_file_name(metric)] = curves(variants, [(metric, "step")], columns=1)
        first = (
            found.metrics[0] if found.metrics[0].startswith("eval/") else "train/reward"
        )
        panel_set = ["train/reward", first, "train/loss", *singles]
        drawn["panels"] = curves(
            variants,
            [(m, "step") for m in panel_set],
            columns=3,
            warning=_warning(found),
        )
        return [
            path
            for name, figure in drawn.items()
            if figure.axes
            for path in _save(figure, folder / name)
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
    data = {panel: found for panel, found in data.items() if found}
    columns = min(columns, len(data))
    figure = Figure(
        figsize=(6.4 if columns < 2 else 1.2 + 3.6 * columns, 0), layout="constrained"
    )
    if not data:
        return figure
    rows = -(-len(data) // columns)
    lines = _legend(
        figure,
        [v.label for v in variants],
        {name for found in data.values() for name in found},
    )
    figure.set_figheight(0.8 + 0.25 * lines + (2.7 if columns > 1 else 3.2) * rows)
    shared = len({metric for metric, _ in data}) == 1
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
    for axes, ((metric, axis), found) in zip(grid.flat, data.items(), strict=False):
        _draw(axes, found, [variant.label for variant in variants], axis)
        if not shared or axes is grid[0][0]:
            axes.set_ylabel(label(metric))
    for axes in grid.flat[len(data) :]:
        figure.delaxes(axes)
    _caption(figure, _curves_caption(variants, [metric for metric, _ in data]), warning)
    return figure


def final(found: Comparison, metric: str) -> Figure:
    """Each variant's value with its 95 % interval, its seeds as small circles, the base
    as a line.
    """
    from matplotlib.figure import Figure

    # for the names, so that they leave the axes theirs
    room = 0.08 * max(len(row.label) for row in found.rows)
    figure = Figure(
        figsize=(6.2 + room, 1.5 + 0.55 * len(found.rows)), layout="constrained"
    )
    axes = figure.subplots()
    for place, row in enumerate(found.rows):
        if metric not in row.results:
            axes.annotate(
                "collapsed",
                (1.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
            )
            continue
        result, look = row.results[metric], _look(place)
        if row.base:
            axes.axvline(
                result.value, color="#888888", linewidth=1, linestyle="--", zorder=1
            )
        if result.interval:
            ends = [result.interval.low, result.interval.high]
            axes.plot(
                ends,
                [place, place],
                color=look["color"],
                linewidth=2.5,
                solid_capstyle="butt",
                zorder=2,
            )
        if len(result.by_seed) > 1:
            seeds = list(result.by_seed.values())
            axes.scatter(
                seeds,
                [place + 0.22] * len(seeds),
                s=20,
                facecolor="none",
                edgecolor=look["color"],
                zorder=3,
            )
        axes.plot(
            result.value,
            place,
            marker=look["marker"],
            color=look["color"],
            markersize=8,
            zorder=4,
        )
        text = f"{result.value:.3f}" + (f"  {result.verdict}" if result.verdict else "")
        axes.annotate(
            text,
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(
        range(len(found.rows)),
        [row.label + (" (base)" if row.base else "") for row in found.rows],
    )
    axes.set_ylim(len(found.rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label(metric))
    results = [row.results[metric] for row in found.rows if row.results]
    covers = {result.interval.covers for result in results if result.interval}
    caption = (
        f"bars: 95 % intervals over {' or '.join(sorted(covers))}"
        if covers
        else "no interval: one seed"
    )
    several = any(len(row.seeds) > 1 for row in found.rows)
    caption += "; circles: seeds" if several else ""
    _caption(figure, caption, _warning(found))
    return figure


def label(metric: str) -> str:
    """What an axis says of a metric, with its unit."""
    if metric in LABELS:
        return LABELS[metric]
    words = metric.split("/")
    name = words[-1].replace("_", " ")
    return f"{words[1]}: {name}" if words[0] == "eval" and len(words) == 3 else name


def _draw(
    axes: Axes, found: Mapping[str, Curve], order: Sequence[str], axis: str
) -> None:
    longest = max(float(c.x[-1]) for c in found.values())
    size, unit = next((s for s in SCALES.get(axis, ()) if longest >= 2 * s[0]), (1, ""))
    # the base first: a broad line that the others are drawn over
    for name in sorted(found, key=order.index):
        place, c = order.index(name), found[name]
        look = _look(place)
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


def _legend(figure: Figure, order: Sequence[str], drawn: set[str]) -> int:
    """One legend above all panels; returns its number of lines."""
    from matplotlib.lines import Line2D

    names = [name for name in order if name in drawn]
    lines = [Line2D([], [], markersize=4, **_look(order.index(name))) for name in names]
    texts = [name + (" (base)" if name == order[0] else "") for name in names]
    room = int(figure.get_figwidth() / (0.7 + 0.085 * max(map(len, texts))))
    columns = max(1, min(len(texts), room))
    figure.legend(lines, texts, loc="outside upper left", ncols=columns, frameon=False)
    return -(-len(texts) // columns)


def _caption(figure: Figure, text: str, warning: str) -> None:
    figure.supxlabel(text, fontsize=8, color="#555555", x=0.01, ha="left")
    if warning:
        figure.suptitle(
            warning, color="#B00020", fontsize=10, fontweight="bold", x=0.01, ha="left"
        )


def _look(place: int) -> dict[str, Any]:
    """Colour, line and marker of the variant in this place; the base, in place 0, is
    black and broad.
    """
    if place == 0:
        return {"color": BASE, "linestyle": "-", "marker": "o", "linewidth": 2.4}
    lap, turn = divmod(place - 1, len(COLOURS))
    line, marker = LINES[lap % len(LINES)], MARKERS[(turn + lap) % len(MARKERS)]
    return {
        "color": COLOURS[turn],
        "linestyle": line,
        "marker": marker,
        "linewidth": 1.6,
    }


def _curves_caption(variants: Sequence[Variant], metrics: Sequence[str]) -> str:
    seeds = sorted({len(variant.runs or variant.collapsed) for variant in variants})
    if seeds == [1]:
        text = "one seed"
        text += (
            "; bands: 95 % interval over questions"
            if any(m.startswith("eval/") for m in metrics)
            else ""
        )
    else:
        count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
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
    return text + (
        f"; training curves: running mean of {mean} points" if mean > 1 else ""
    )


def _warning(found: Comparison) -> str:
    return "NOT COMPARABLE: measured differently" if found.forced else ""


def _file_name(metric: str) -> str:
    name = metric.removeprefix("eval/").removeprefix("train/")
    return re.sub(r"[^\w.-]+", "_", name)


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def _save(figure: Figure, stem: Path) -> list[Path]:
    from io import BytesIO

    from alignkit.run import atomic_write

    files = []
    for kind, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
        buffer = BytesIO()
        figure.savefig(buffer, format=kind, **options)
        path = stem.with_name(f"{stem.name}.{kind}")
        atomic_write(path, buffer.getvalue())
        files.append(path)
    return files
