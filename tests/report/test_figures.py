"""The figures of a comparison: what they show, and that they are files one can open."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alignkit.report import figures, looks
from alignkit.report.collect import collect
from alignkit.report.comparison import compare
from alignkit.report.curves import curve

METRIC = "eval/math/accuracy"


def test_every_figure_is_written_as_png_and_svg(make, tmp_path):
    from matplotlib.image import imread

    collection = collect(make.ablation(seeds=(0, 1)))
    files = figures.write_all(collection, compare(collection, [METRIC]), tmp_path)
    stems = [
        "curves_math_accuracy",
        "entropy",
        "final_math_accuracy",
        "grad_norm",
        "panels",
        "response_length",
    ]
    assert sorted(path.name for path in files) == [
        f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")
    ]
    assert all(imread(path).shape[0] > 300 for path in files if path.suffix == ".png")


def test_the_same_comparison_draws_the_same_svg(make, tmp_path):
    variants = collect(make.ablation(seeds=(0,))).variants
    drawn = [figures.curves(variants, [(METRIC, "step")], columns=1) for _ in range(2)]
    with looks.style():
        one, two = (
            looks.save(figure, tmp_path / name)
            for figure, name in zip(drawn, "ab", strict=True)
        )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_curves_stand_by_step_tokens_and_wall_clock_with_units_and_a_legend(make):
    variants = collect(make.ablation()).variants
    figure = figures.curves(
        variants, [(METRIC, axis) for axis in figures.AXES], columns=3
    )
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "training step",
        "tokens (millions)",
        "wall clock (minutes)",
    ]
    assert figure.axes[0].get_ylabel() == "math: accuracy"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "sequence (base)",
        "constant",
        "microbatch",
    ]


def test_the_base_is_black_and_broad_and_no_other_line_is(make):
    figure = figures.curves(
        collect(make.ablation()).variants, [(METRIC, "step")], columns=1
    )
    base, *others = figure.axes[0].lines
    assert base.get_color() == looks.BASE
    assert all(
        line.get_color() != looks.BASE and line.get_linewidth() < base.get_linewidth()
        for line in others
    )


def test_twenty_variants_all_look_different():
    twenty = [looks.look(place) for place in range(20)]
    assert len({(look["color"], look["linestyle"]) for look in twenty}) == 20


def test_a_curve_is_the_mean_over_seeds_between_the_lowest_and_the_highest(make):
    variant = collect(make.ablation()).variants[0]
    found = curve(variant, METRIC, "step")
    seeds = [
        [result.summary["value"] for result in sorted(r.evals, key=lambda e: e.step)]
        for r in variant.runs
    ]
    assert found.x.tolist() == [0, 5, 10, 15, 20]
    assert np.allclose(
        [found.y, found.low, found.high],
        [np.mean(seeds, 0), np.min(seeds, 0), np.max(seeds, 0)],
    )


def test_one_seed_has_the_evals_interval_as_band_and_training_curves_have_none(make):
    variant = collect([make.run()]).variants[0]
    last = json.loads(
        (variant.runs[0].folder / "evals/math@20/summary.json").read_text()
    )
    found = curve(variant, METRIC, "step")
    assert (found.low[-1], found.high[-1]) == (last["low"], last["high"])
    assert curve(variant, "train/reward", "step").low is None


def test_an_eval_without_its_own_token_count_stands_where_the_training_stood(make):
    variant = collect([make.run()]).variants[0]
    tokens = {
        row["step"]: row["tokens"] for row in variant.runs[0].rows if "tokens" in row
    }
    assert curve(variant, METRIC, "tokens").x.tolist() == [
        0,
        tokens[5],
        tokens[10],
        tokens[15],
        tokens[20],
    ]


def test_the_wall_clock_of_a_resumed_run_goes_on(make):
    folder = make.run()
    rows = [
        {"step": 1, "seconds": 10.0, "train/loss": 1.0},
        {"step": 2, "seconds": 20.0, "train/loss": 1.0},
    ]
    rows.append({"step": 3, "seconds": 5.0, "train/loss": 1.0})
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    assert curve(collect([folder]).variants[0], "train/loss", "seconds").x.tolist() == [
        10.0,
        20.0,
        25.0,
    ]


@pytest.mark.parametrize(("points", "window"), [(20, 1), (60, 1), (200, 5), (1000, 17)])
def test_long_training_curves_are_shown_as_a_running_mean_that_the_caption_states(
    make, points, window
):
    figure = figures.curves(
        collect([make.run(steps=points)]).variants,
        [("train/reward", "step")],
        columns=1,
    )
    caption = figure.get_supxlabel()
    assert (f"running mean of {window} points" in caption) == (window > 1)


def test_metrics_that_no_run_has_leave_no_empty_panel(make):
    figure = figures.curves(
        collect([make.run()]).variants,
        [("train/nothing", "step"), (METRIC, "step")],
        columns=2,
    )
    assert len(figure.axes) == 1


def test_the_final_figure_names_the_verdicts_and_what_the_bars_cover(make):
    figure = figures.final(compare(collect(make.ablation()), [METRIC]), METRIC)
    assert [text.get_text()[5:].strip() for text in figure.axes[0].texts] == [
        "",
        "higher",
        "no difference shown",
    ]
    assert figure.get_supxlabel() == "bars: 95 % intervals over seeds; circles: seeds"


def test_a_forced_comparison_is_marked_in_its_figures(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1}, provenance={"data": "d2"})]
    assert (
        "NOT COMPARABLE"
        in figures.final(compare(collect(runs), force=True), METRIC).get_suptitle()
    )


def test_a_name_is_drawn_as_it_is_and_not_as_a_formula(make, tmp_path):
    collection = collect([make.run("a$x^{$"), make.run("b", recipe={"x": 1})])
    assert figures.write_all(collection, compare(collection), tmp_path)
