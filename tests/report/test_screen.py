"""A comparison on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from alignkit.report import cells
from alignkit.report.collect import collect
from alignkit.report.comparison import compare
from alignkit.report.screen import shown

METRICS = ["eval/math/accuracy", "train/reward"]


def rendered(comparison, width: int) -> list[str]:
    screen = Console(width=width, file=io.StringIO())
    for part in shown(comparison, width):
        screen.print(part, markup=False)
    return screen.file.getvalue().splitlines()


def long_names(make):
    """Stages of pipelines, each with a long name and deep keys."""
    return [
        make.run(
            f"pipeline_math_with_a_long_name_{rate}",
            seed,
            0.4 + 1000 * rate,
            recipe={"stages": {"grpo": {"train": {"learning_rate": rate}}}, "x": rate},
        )
        for rate in (1e-5, 3e-4)
        for seed in (0, 1)
    ]


def many(make):
    return [
        make.run(
            f"v{n}", 0, 0.3 + n / 40, recipe={f"setting_{n % 7}": "value" * (n % 4)}
        )
        for n in range(12)
    ]


KINDS = {
    "three seeds": lambda make: make.ablation(),
    "one seed": lambda make: make.ablation(seeds=(0,)),
    "long names": long_names,
    "many variants": many,
    "hostile": lambda make: [
        make.run("[red]a[/]"),
        make.run("b\x1b]0;x\x07", recipe={"[x]": "[/y]"}),
    ],
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_no_interval_is_cut_and_what_differs_is_said_once(make, kind, width):
    comparison = compare(collect(KINDS[kind](make)), METRICS)
    lines = rendered(comparison, width)
    text = "\n".join(lines)
    assert "\x1b" not in text
    for row in comparison.rows:
        for metric in METRICS:
            value, interval, difference, around, *_ = cells.result_cells(
                row.results[metric]
            )
            for whole in (value, interval, difference, around):
                assert whole in text
    if width >= 80:
        assert max(map(len, lines)) <= width
        places = [key for key in comparison.columns if f"  {key} " in text]
        assert places == list(comparison.columns) or kind == "hostile"
    assert text.count("(base)") == len(METRICS)


def test_short_names_are_kept_and_long_ones_become_letters(make):
    text = "\n".join(rendered(compare(collect(make.ablation()), METRICS), 120))
    assert "microbatch" in text and "\nB " not in text
    lines = rendered(compare(collect(long_names(make)), METRICS), 80)
    assert "A  pipeline_math_with_a_long_name_1e-05" in lines
    assert sum("long_name_0.0003" in line for line in lines) == 1


def test_settings_of_stages_stand_in_columns(make):
    lines = rendered(compare(collect(long_names(make)), METRICS), 80)
    head = next(line for line in lines if line.startswith("what differs"))
    rate = next(line for line in lines if "stages.grpo.train.learning_rate" in line)
    assert head.index(" A") == rate.index(" 1e-05")
    assert head.index(" B") == rate.index(" 0.0003")


def test_a_forced_comparison_is_marked(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1}, provenance={"prompt": "p2"})]
    lines = rendered(compare(collect(runs), force=True), 120)
    assert lines[0].startswith("NOT COMPARABLE")
