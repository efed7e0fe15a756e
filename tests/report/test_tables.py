"""The tables of a comparison in every format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from alignkit.report import cells, tables
from alignkit.report.collect import collect
from alignkit.report.comparison import compare

METRIC = "eval/math/accuracy"


@pytest.fixture
def found(make):
    return compare(collect(make.ablation(seeds=(0, 1))), [METRIC, "train/reward"])


@pytest.fixture
def forced(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1}, provenance={"prompt": "p2"})]
    return compare(collect(runs), force=True)


def test_markdown_has_a_row_per_variant_and_a_column_per_difference(found):
    lines = [
        line for line in tables.markdown(found).splitlines() if line.startswith("|")
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert cells[0][:4] == ["variant", "loss.constant", "loss.normalize", "seeds"]
    assert [row[:4] for row in cells[2:]] == [
        ["sequence (base)", "-", "sequence", "2"],
        ["constant", "1024", "constant", "2"],
        ["microbatch", "-", "microbatch", "2"],
    ]


def test_csv_holds_full_precision_in_as_many_cells_as_heads(found):
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(found)), strict=True))
    assert [row["variant"] for row in rows] == ["sequence", "constant", "microbatch"]
    assert float(rows[1][f"{METRIC}:value"]) == found.rows[1].results[METRIC].value
    assert float(rows[1][f"{METRIC}:p_holm"]) == found.rows[1].results[METRIC].p_holm
    assert (
        rows[0][f"{METRIC}:difference"] == "" and rows[0]["measured_differently"] == ""
    )
    assert None not in rows[0] and None not in rows[0].values()


def test_json_holds_the_tests_over_questions_and_over_seeds(found):
    result = json.loads(tables.as_json(found))["rows"][1]["results"][METRIC]
    assert set(result["by_seed"]) == {"0", "1"}
    assert result["difference"]["bootstrap"]["covers"] == "questions"
    assert (
        0 <= result["difference"]["p_questions"] <= 1
        and 0 <= result["difference"]["p_seeds"] <= 1
    )


def test_latex_escapes_what_latex_would_read(make):
    runs = [
        make.run("100%_a&b"),
        make.run("c", recipe={"stop": ["</answer>", "#$^~\\{}"]}),
    ]
    text = tables.latex(compare(collect(runs)))
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert r"100\%\_a\&b (base)" in body
    assert (
        r"$<$/answer$>$" in body
        and r"\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}" in body
    )
    assert (
        len(
            {
                len(re.findall(r"(?<!\\)&", line))
                for line in body.splitlines()
                if line.endswith(r"\\")
            }
        )
        == 1
    )


def test_markdown_escapes_pipes_and_tags(make):
    text = tables.markdown(
        compare(collect([make.run("a|b<script>"), make.run("c", recipe={"x": 1})]))
    )
    assert r"a\|b\<script>" in text


@pytest.mark.parametrize(
    "write", [tables.markdown, tables.as_csv, tables.as_json, tables.latex]
)
def test_a_forced_comparison_is_marked_in_every_file(forced, write):
    assert "measured differently" in write(forced) and "prompt" in write(forced)


def test_missing_numbers_and_tiny_p_values_are_shown_as_such():
    assert [cells.number(v) for v in (None, 0.12345, 523.123, -0.00001)] == [
        "-",
        "0.123",
        "523.1",
        "0.000",
    ]
    assert [cells.p_value(v) for v in (None, 0.0004, 0.0123)] == [
        "-",
        "<0.001",
        "0.012",
    ]


def test_no_table_holds_control_characters_or_links_of_a_recipe(make):
    prompt = {"prompt": {"template": "\x1b[31m[x](javascript:alert(1))\r\\input{x}"}}
    runs = [make.run("a"), make.run("b", recipe={"data": prompt})]
    found = compare(collect(runs))
    for write in (tables.markdown, tables.latex):
        assert not set("\x1b\r") & set(write(found))
    assert "](javascript" not in tables.markdown(found)
