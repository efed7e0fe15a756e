"""One rule for truths: what is read of them, and what is none."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from alignkit import grade, grade_math, grade_math_verify, kits, plugins, truth_texts
from alignkit.cli import cli
from alignkit.data import require_truth
from alignkit.errors import InputError
from alignkit.grading.truths import missing_truth

SOLUTION = "16 - 3 = 13\n13 + 5 = 18\n#### 18"
MISSING = [None, "", "  \n", math.nan, [], ["18", ""], [None]]


@pytest.mark.parametrize(
    ("truth", "texts"),
    [
        ("18", ["18"]),
        (18, ["18"]),
        (["18", 19], ["18", "19"]),
        (SOLUTION, ["18"]),
        ("so \\boxed{\\frac12}", ["\\frac12"]),
    ],
)
def test_a_truth_is_a_text_a_list_a_box_or_a_worked_solution(truth, texts):
    assert list(truth_texts(truth)) == texts


def test_every_grader_reads_a_worked_solution_alike():
    exact_match = plugins.load([kits.builtin()]).get("reward", "exact_match").value
    for grader in (grade_math, grade_math_verify):
        assert grader("\\boxed{18}", SOLUTION).reward == 1
    assert grade("\\boxed{18}", SOLUTION, form="boxed").reward == 1
    assert exact_match.function("18", SOLUTION).reward == 1


@pytest.mark.parametrize("truth", MISSING, ids=repr)
def test_a_missing_truth_is_refused_by_row_and_line(tmp_path, truth):
    assert missing_truth(truth)
    reward = plugins.load([kits.builtin()]).get("reward", "math")
    with pytest.raises(InputError, match="row 2"):
        require_truth(reward, [{"truth": "1"}, {"truth": truth}])
    file = tmp_path / "rows.jsonl"
    rows = [{"response": "\\boxed{}", "truth": t} for t in ("1", truth)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = CliRunner().invoke(cli, ["grade", str(file), "--reward", "math", "--json"])
    summary = json.loads(told.stdout)
    assert summary["rewards"]["math"]["n"] == 1
    assert f"{file}:2: the truth in 'truth' " in summary["problems"][0]


@pytest.mark.parametrize("truth", MISSING[1:], ids=repr)
def test_an_eval_refuses_a_missing_truth(tmp_path, truth):
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"{t}?", "truth": t, "response": ""} for t in ("1", truth)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError):
        CliRunner().invoke(
            cli, ["eval", "gsm8k", "--responses", str(file)], catch_exceptions=False
        )


@pytest.mark.parametrize("truth", ["18", 18, 0, 0.0, ["a"], "none"])
def test_other_truths_are_there(truth):
    assert not missing_truth(truth)
