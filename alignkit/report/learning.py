"""The learning curve of one run: a column for each stage, a row for each thing that is
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.report import looks
from alignkit.report.collect import Variant
from alignkit.report.curves import Curve, curve, window
from alignkit.report.runs import EvalResult, RunData, read_eval
from alignkit.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EVALS = 3
WIDTH, HEIGHT = 3.6, 1.9  # inches of a panel
# What rewards make of responses, as shares: drawn in one panel, if it is ever above 0.
SHARES = {
    "train/truncated": "cut at max_new_tokens",
    "train/status/unparsed": "unparsed",
    "train/status/error": "error",
    "train/status/timeout": "timeout",
    "train/groups_without_variance": "groups without variance",
}
KEPT = {
    "ei/fraction_correct": "right rollouts",
    "ei/fraction_solved": "solved questions",
}
# by what a row of panels shows: its metrics, and the name of each line
PANELS = {
    looks.label("train/loss"): {"train/loss": ""},
    looks.label("train/reward"): {"train/reward": ""},
    "share of rollouts": KEPT,
    "share": SHARES,
}


@dataclass
class Stage:
    """What one stage logged: the rows of metrics.jsonl, and its evals."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    evals: Sequence[EvalResult] = field(default_factory=list)

    def curve(self, metric: str) -> Curve | None:
        """By step, an eval with its interval."""
        run = RunData(Path(), {}, {}, self.rows, self.evals)
        return curve(Variant("", [run]), metric, "step")


def stages_of(homes: Mapping[str, Path]) -> list[Stage]:
    """The stages that began, by name and run folder."""
    stages = []
    for name, home in homes.items():
        if not (home / "manifest.json").is_file():
            continue
        evals = []
        for file in sorted(home.glob("evals/*@*/summary.json")):
            try:
                evals.append(read_eval(file.parent))
            except InputError:
                continue  # one without a score has no point
        stages.append(Stage(name, Run.open(home).metrics(), evals))
    return stages


def learning_curve(stages: Sequence[Stage], stem: Path) -> Path | None:
    """Evals, reward, shares and loss of each stage over its steps, as `<stem>.png`;
    None where nothing was logged.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    evals = _evals(stages)
    rows = {
        label: drawn
        for label, metrics in {**evals, **PANELS}.items()
        if any(drawn := [_drawn(stage, metrics) for stage in stages])
    }
    shown = [n for n in range(len(stages)) if any(row[n] for row in rows.values())]
    if not shown:
        return None
    with looks.style():
        size = (1.0 + WIDTH * len(shown), 0.7 + HEIGHT * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), len(shown), squeeze=False)
        for line, (label, drawn) in zip(grid, rows.items(), strict=True):
            before: tuple[Axes, Curve] | None = None
            for axes, number in zip(line, shown, strict=True):
                curves = drawn[number]
                if not curves:
                    axes.set_axis_off()
                    continue
                if before is None:
                    axes.set_ylabel(label)
                elif label in evals:
                    axes.sharey(before[0])
                    axes.tick_params(labelleft=False)
                    _join(axes, before[1], curves[""])
                _draw(axes, curves)
                before = axes, next(iter(curves.values()))
        for column, number in zip(grid.T, shown, strict=True):
            filled = [axes for axes in column if axes.lines]
            end = max((row["step"] for row in stages[number].rows), default=0)
            for axes in filled:
                axes.set_xlim(-0.03 * max(end, 1), 1.03 * max(end, 1))
                axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
                axes.tick_params(labelbottom=axes is filled[-1])
            if len(stages) > 1:
                filled[0].set_title(stages[number].name, fontweight="bold")
            filled[-1].set_xlabel("training step")
        looks.caption(figure, _caption(stages, joined=len(shown) > 1), "")
        return looks.save(figure, stem, ("png",))[0]


def _evals(stages: Sequence[Stage]) -> dict[str, dict[str, str]]:
    """A row of panels for each eval's main metric."""
    mains = {
        f"eval/{result.name}/{result.summary['metric']}"
        for stage in stages
        for result in stage.evals
    }
    return {looks.label(metric): {metric: ""} for metric in sorted(mains)[:MOST_EVALS]}


def _drawn(stage: Stage, metrics: Mapping[str, str]) -> dict[str, Curve]:
    """The curves of a panel, by name; of shares those that are ever above 0."""
    curves = {name: stage.curve(metric) for metric, name in metrics.items()}
    return {n: c for n, c in curves.items() if c and (not n or float(c.y.max()) > 0)}


def _draw(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for place, (name, c) in enumerate(curves.items()):
        look = looks.look(place + bool(name))
        if c.low is not None and c.high is not None:
            around = [(c.y - c.low).clip(0), (c.high - c.y).clip(0)]
            color = look["color"]
            axes.errorbar(c.x, c.y, around, fmt="none", ecolor=color, capsize=2.5)
        axes.plot(
            c.x,
            c.y,
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=1.6,
            marker=look["marker"] if len(c.x) <= 25 else None,
            markersize=4,
            label=name,
        )
    if any(curves):
        axes.set_ylim(-0.03, 1.03)
        axes.legend(fontsize=8, frameon=False, loc="best")


def _join(axes: Axes, before: Curve, after: Curve) -> None:
    """Where a stage measured nothing at its start: what the one before ended with."""
    if after.x[0] > 0:
        ends = [before.y[-1], after.y[0]]
        axes.plot([0, after.x[0]], ends, color="#888888", linestyle=":", linewidth=1.4)


def _caption(stages: Sequence[Stage], *, joined: bool) -> str:
    said = []
    if any(stage.evals for stage in stages):
        said.append("bars: 95 % interval over questions")
    if said and joined:
        said.append("dotted: from what the stage before ended with")
    mean = max(
        (
            window(sum(metric in row for row in stage.rows))
            for stage in stages
            for metric in ("train/loss", "train/reward")
        ),
        default=1,
    )
    if mean > 1:
        said.append(f"training curves: running mean of up to {mean} points")
    return "; ".join(said)
