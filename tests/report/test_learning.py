"""The learning curve of a run: a column for each stage, a row for each measure."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from alignkit.report import learning
from alignkit.report.learning import Stage, learning_curve
from alignkit.report.runs import EvalResult


def measured(*points: tuple[int, float], name: str = "m") -> list[EvalResult]:
    return [
        EvalResult(
            name,
            step,
            Path(),
            {"metric": "accuracy", "value": v, "low": v - 0.05, "high": v + 0.05},
        )
        for step, v in points
    ]


def logged(metric: str, *values: float) -> list[dict]:
    return [{"step": n, metric: value} for n, value in enumerate(values, 1)]


SFT = Stage("sft", logged("train/loss", 2.5, 1.0, 0.5), measured((0, 0.1), (3, 0.3)))
GRPO = Stage(
    "grpo",
    [
        {"step": n, "train/loss": -0.01, "train/reward": n / 9, "train/truncated": 0.2}
        | {"train/status/error": 0.0, "train/groups_without_variance": 0.5}
        for n in range(1, 9)
    ],
    measured((8, 0.9)),
)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure of some stages, laid out."""
    figures = []
    monkeypatch.setattr(
        learning.looks, "save", lambda figure, *_: [figures.append(figure)]
    )

    def draw(*stages: Stage):
        figures.clear()
        learning_curve(stages, tmp_path / "learning_curve")
        if not figures:
            return None
        figures[0].draw_without_rendering()
        return figures[0]

    return draw


def filled(figure):
    return [axes for axes in figure.axes if axes.lines]


def test_each_stage_is_a_column_of_the_same_width(drawn):
    figure = drawn(SFT, GRPO)
    assert len({round(axes.get_position().width, 3) for axes in filled(figure)}) == 1
    titles = [axes.get_title() for axes in filled(figure) if axes.get_title()]
    assert titles == ["sft", "grpo"]
    [end] = {
        a.get_xlim()[1] for a in filled(figure) if a.get_subplotspec().is_last_col()
    }
    assert end == pytest.approx(8 * 1.03)


def test_an_eval_is_joined_to_the_stage_before_and_has_its_interval(drawn):
    first, second = filled(drawn(SFT, GRPO))[:2]
    assert first.get_ylabel() == "m: accuracy"
    assert first.get_ylim() == second.get_ylim()
    points = [
        list(map(tuple, line.get_xydata())) for line in (*first.lines, *second.lines)
    ]
    assert [(0.0, 0.1), (3.0, 0.3)] in points
    assert [(0.0, 0.3), (8.0, 0.9)] in points  # dotted
    bars = [c for axes in (first, second) for c in axes.collections]
    heights = [s[1][1] - s[0][1] for bar in bars for s in bar.get_segments()]
    assert heights == pytest.approx([0.1, 0.1, 0.1])


def test_the_loss_stands_apart_at_its_own_scale(drawn):
    losses = [a for a in filled(drawn(SFT, GRPO)) if len(a.lines) == 1]
    low = [axes.get_ylim() for axes in losses if axes.lines[0].get_ydata()[0] < 0]
    assert low and all(high < 0.1 for _, high in low)


def test_shares_are_drawn_that_are_ever_above_zero(drawn):
    [shares] = [axes for axes in filled(drawn(SFT, GRPO)) if axes.get_legend()]
    names = [text.get_text() for text in shares.get_legend().get_texts()]
    assert names == ["cut at max_new_tokens", "groups without variance"]


KINDS = {
    "sft alone": [SFT],
    "pipeline": [SFT, GRPO],
    "three stages": [SFT, GRPO, Stage("dpo", logged("train/loss", 0.7, 0.6))],
    "one point": [Stage("a", [{"step": 1, "train/loss": 1.0}])],
    "only an eval": [Stage("a", [], measured((0, 0.5)))],
    "expert iteration": [Stage("ei", logged("ei/fraction_solved", 0.1, 0.4))],
    "a long name": [Stage("x" * 60, SFT.rows), Stage("y" * 60, GRPO.rows, GRPO.evals)],
    "many evals": [
        Stage("a", [], [e for n in "abcde" for e in measured((0, 0.5), name=n)])
    ],
    "a hostile name": [Stage("$x^{ \\n", SFT.rows), SFT],
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_panel_covers_another(drawn, kind):
    figure = drawn(*KINDS[kind])
    boxes = [axes.get_window_extent() for axes in filled(figure)]
    assert boxes and all(box.width > 100 and box.height > 60 for box in boxes)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    bottoms = [axes for axes in filled(figure) if axes.get_xlabel()]
    assert len(bottoms) == len(KINDS[kind])


@pytest.mark.parametrize("stages", [[], [Stage("a", [])], [Stage("a", [{"step": 1}])]])
def test_a_run_that_logged_nothing_has_no_learning_curve(tmp_path, stages):
    assert learning_curve(stages, tmp_path / "learning_curve") is None
    assert not list(tmp_path.iterdir())


def test_a_learning_curve_is_one_png(tmp_path):
    path = learning_curve([SFT, GRPO], tmp_path / "learning_curve")
    assert path == tmp_path / "learning_curve.png"
    assert list(tmp_path.iterdir()) == [path]
