"""report.md and the answers at a run's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignkit import kits, plugins, recipe
from alignkit.report import document
from alignkit.report.answers import Changed, changed
from alignkit.run import Run, new_row, write_rows

RECIPE = """\
name: small
description: |
  It will [learn](http://evil) <b>everything</b>.
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 8}, prompt: arithmetic}
train: {max_steps: 1, learning_rate: 3.0e-4}
"""


def written(tmp_path: Path, **more) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE)
    run = Run.create(tmp_path, "small")
    run.write("recipe.yaml", "{}")
    loaded = recipe.load(file, registry=plugins.load([kits.builtin()]))
    given = {"homes": {"small": run.folder}, "evals": [], "figure": None, "changed": []}
    given |= {"reports": [], "proofs": {}, "warnings": []} | more
    text = document.write(run, loaded, **given).read_text()
    run.release()
    return text


def test_the_report_says_what_was_stated_and_where_and_links_what_is_there(tmp_path):
    text = written(tmp_path)
    assert "| train.learning_rate | 0.0003 | " in text and "small.yaml:7:" in text
    assert "| train.weight_decay |" not in text  # a default
    assert "[the recipe, resolved](recipe.yaml)" in text and "metrics" not in text


def test_the_authors_words_stand_apart_and_act_as_text(tmp_path):
    text = written(tmp_path, warnings=["a <script>", "b | c"])
    assert "The recipe's author, before it was run: It will [learn]\\(http" in text
    assert "\\<b>everything" in text and "- a \\<script>" in text and "b \\| c" in text


HOSTILE = "\x1b]0;x\x07 </think> | [a](javascript:b) <img src=x> `c`\n# head"


def test_answers_are_told_with_question_and_truth_and_act_as_text(tmp_path):
    answer = [("before", HOSTILE, "0"), ("after", "4", "1")]
    text = written(tmp_path, changed=[Changed(HOSTILE, "4", answer)])
    rows = [line for line in text.splitlines() if "\\</think>" in line]
    assert len(rows) == 1 and rows[0].count(" | ") == 4 and "| 4 | before |" in rows[0]
    assert "\x1b" not in text and "<img" not in text.replace("\\<img", "")
    assert "\n# head" not in text


def sampled(folder: Path, step: int, responses: dict[str, str], **fields) -> None:
    rows = [
        new_row({"id": q, "response": r, "truth": f"t{q}", "reward": 1.0, **fields})
        for q, r in responses.items()
    ]
    target = folder / "evals" / f"m@{step}"
    target.mkdir(parents=True)
    write_rows(target / "samples.jsonl", rows)


@pytest.mark.parametrize(
    ("fields", "question"),
    [
        ({"metadata": {"question": "1+1?"}, "prompt": "Q: 1+1?"}, "1+1?"),
        ({"prompt": "Q: 1+1?"}, "Q: 1+1?"),
        ({"prompt": [{"role": "user", "content": "1+1?"}]}, "1+1?"),
        ({}, "a"),
    ],
)
def test_an_answer_that_changed_has_its_question_and_truth(tmp_path, fields, question):
    sampled(tmp_path, 0, {"a": "x", "b": "same"}, **fields)
    sampled(tmp_path, 3, {"a": "z" * 300 + "\n4", "b": "same"}, **fields)
    [told] = changed({"s": tmp_path})
    assert (told.question, told.truth) == (question, "ta")
    (first, x, _), (last, end, reward) = told.answers
    assert (first, x, last, reward) == ("before s", "x", "s, step 3", "1")
    assert end.startswith("…z") and end.endswith("z\\n4") and len(end) <= 101


def test_few_answers_are_told(tmp_path):
    sampled(tmp_path, 0, {str(n): "x" for n in range(9)})
    sampled(tmp_path, 1, {str(n): "y" for n in range(9)})
    assert len(list(changed({"s": tmp_path}))) == 3
