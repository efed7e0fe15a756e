"""The row of rollouts and samples: complete, the same after a round trip, and of every
version.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from alignkit.data import read_file
from alignkit.errors import InputError
from alignkit.evaluate.responses import StoredResponses
from alignkit.report.runs import EvalResult
from alignkit.run import append_jsonl, append_rows, new_row, read_rows, write_rows
from alignkit.run.rows import VERSION, Row

TEXTS = [
    "",
    "a",
    "a\ud800b",
    "\udfff",
    '"\\',
    "\x00\u2028\n",
    "½ ∞ \U0001f600",
    "\\ud800",
]
NUMBERS = [0, -1, 2**80, -(10**4000), 1e308, 5e-324, 0.1, True, None]


def value(draw: random.Random, depth: int = 3):
    """Any value of JSON, hostile texts and numbers among them."""
    kind = draw.randrange(4 if depth else 2)
    if kind == 0:
        return "".join(draw.choices(TEXTS, k=2)).replace("\udfff\ud800", "")
    if kind == 1:
        return draw.choice(NUMBERS)
    parts = [value(draw, depth - 1) for _ in range(draw.randrange(3))]
    return (
        parts
        if kind == 2
        else {f"k{n}{draw.choice(TEXTS)}": v for n, v in enumerate(parts)}
    )


def any_row(draw: random.Random) -> Row:
    names = draw.sample(
        sorted(Row.__annotations__), draw.randrange(len(Row.__annotations__))
    )
    free = {name: value(draw) for name in names if name != "version"}
    for name in ("parts", "rewards", "metadata"):
        free.pop(name, None)
    entry = {
        "reward": 0.5,
        "status": "ok",
        "parts": {},
        "stage": "",
        "explanation": value(draw, 0),
    }
    return new_row({**free, "rewards": {"r": entry}, "metadata": {"x": value(draw)}})


def test_a_row_is_the_same_after_a_round_trip(tmp_path):
    draw = random.Random(0)
    rows = [any_row(draw) for _ in range(300)]
    write_rows(tmp_path / "whole.jsonl", rows[:200])
    append_rows(tmp_path / "whole.jsonl", rows[200:])
    again = list(read_rows(tmp_path / "whole.jsonl"))
    # two lone halves side by side are one character to whoever reads them
    joined = [json.loads(json.dumps(row)) for row in rows]
    assert again == joined and len(again) == 300


def test_a_row_has_every_field_and_one_version():
    row = new_row({})
    assert row.keys() == Row.__annotations__.keys()
    assert row["version"] == VERSION


@pytest.mark.parametrize("hostile", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null_for_every_reader(tmp_path, hostile):
    write_rows(
        tmp_path / "r.jsonl",
        [new_row({"truth": [hostile], "parts": {"p": hostile}, "reward": hostile})],
    )

    def refuse(text: str):
        raise AssertionError(f"{text} is no JSON")

    line = (tmp_path / "r.jsonl").read_text()
    row = json.loads(line, parse_constant=refuse)
    assert (row["truth"], row["parts"], row["reward"]) == ([None], {"p": None}, None)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_that_python_cannot_print_is_written_as_text(tmp_path, sign):
    write_rows(tmp_path / "r.jsonl", [new_row({"truth": sign * 10**9999})])
    (row,) = read_rows(tmp_path / "r.jsonl")
    assert int(row["truth"], 16) == sign * 10**9999


def test_an_integer_too_long_for_python_is_read_as_text(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"truth": ' + "9" * 5000 + "}\n")
    (row,) = read_rows(tmp_path / "r.jsonl")
    assert row["truth"] == "9" * 5000


def test_a_torn_last_line_is_left_out_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    write_rows(path, [new_row({"response": "a"})])
    with path.open("a") as file:
        file.write('{"response": "b"')
    assert [row["response"] for row in read_rows(path)] == ["a"]
    for damage in (
        "nonsense",
        "[1]",
        '{"rewards": [1]}',
        "[" * 100_000,
        '{"metadata": 3}',
    ):
        path.write_text(f'{{"response": "a"}}\n{damage}\n')
        with pytest.raises(InputError, match=r"r.jsonl:2: not a row"):
            list(read_rows(path))


# -- rows of 0.1, as its four writers wrote them ----------------------------------------

ROLLOUT = {
    "step": 3,
    "prompt": "1+1=?",
    "response": "2",
    "truth": "2",
    "reward": 1.0,
    "status": "timeout",
    "parts": {"format_reward": 1.0},
    "rewards": {"drgrpo": {"reward": 1.0, "status": "timeout", "stage": "text"}},
    "explanation": "drgrpo: no verdict",
    "tokens": 2,
    "metadata": {"question": "1+1", "id": "7"},
}
ITERATED = {
    "question": 5,
    "sample": 1,
    "prompt": "1+1=?",
    "response": "2",
    "truth": "2",
    "metadata": {"question": "1+1"},
    "finish_reason": "stop",
    "tokens": 2,
    "surprise": 0.25,
    "hinted": True,
    "reward": 1.0,
    "status": "ok",
    "parts": {},
    "rewards": {"drgrpo": {"reward": 1.0, "status": "ok", "stage": "text"}},
    "correct": True,
}
SAMPLE = {
    "id": "a-0",
    "sample": 0,
    "prompt": [{"role": "user", "content": "1+1"}],
    "response": "2",
    "truth": "2",
    "reward": 1.0,
    "status": "ok",
    "parts": {"answer": 1.0},
    "stage": "text",
    "explanation": "equal",
    "finish_reason": "length",
    "tokens": None,
    "metadata": {"question": "1+1"},
    "seconds": 0.5,
}
GRADED = {
    "question": "1+1",
    "source": "gsm8k",
    "response": "2",
    "ground_truth": "2",
    "grade": {
        "r1": {"reward": 1.0, "parts": {}, "status": "ok", "stage": "s", "seconds": 0.1}
    },
}


def old(tmp_path: Path, row: dict) -> Row:
    append_jsonl(tmp_path / "old.jsonl", [row])
    (read,) = read_rows(tmp_path / "old.jsonl")
    assert read.keys() == Row.__annotations__.keys()
    return read


def test_a_rollout_of_0_1_is_read(tmp_path):
    row = old(tmp_path, ROLLOUT)
    same = ROLLOUT.keys() - {"rewards"}
    assert {name: row[name] for name in same} == {name: ROLLOUT[name] for name in same}
    assert row["rewards"]["drgrpo"]["stage"] == "text"
    assert row["rewards"]["drgrpo"]["explanation"] == ""
    empty = ("group", "sample", "advantage", "finish_reason", "mean_logprob", "source")
    assert [row[name] for name in empty] == [None] * len(empty)


def test_a_rollout_of_expert_iteration_of_0_1_is_read(tmp_path):
    row = old(tmp_path, ITERATED)
    assert (row["group"], row["sample"], row["mean_logprob"]) == (5, 1, -0.25)
    assert row["metadata"] == {"question": "1+1", "hinted": True}
    assert (row["reward"], row["finish_reason"], row["step"]) == (1.0, "stop", None)
    assert old(tmp_path / "b", {**ITERATED, "surprise": None})["mean_logprob"] is None


def test_a_sample_of_0_1_is_read(tmp_path):
    row = old(tmp_path, SAMPLE)
    assert {name: row[name] for name in SAMPLE} == SAMPLE
    assert row["rewards"] == {} and row["verdicts"] == []


def test_a_graded_row_is_read_and_its_columns_are_metadata(tmp_path):
    row = old(tmp_path, GRADED)
    assert row["rewards"]["r1"]["reward"] == 1.0 and row["truth"] == "2"
    # a column of the data set that has the name of a field which 0.1 did not know
    assert row["metadata"] == {"question": "1+1", "source": "gsm8k"}
    assert row["source"] is None


def test_a_graded_row_of_today_keeps_its_fields(tmp_path):
    row = new_row({"response": "2", "group": 4, "advantage": 0.5})
    append_rows(tmp_path / "g.jsonl", [{**row, "grade": GRADED["grade"]}])
    (read,) = read_rows(tmp_path / "g.jsonl")
    assert (read["group"], read["advantage"]) == (4, 0.5)
    assert list(read["rewards"]) == ["r1"] and read["metadata"] == {}


@pytest.mark.parametrize("row", [ROLLOUT, ITERATED], ids=["rollout", "iterated"])
def test_rollouts_bring_their_own_questions_to_an_eval_whatever_their_version(
    tmp_path, row
):
    path = tmp_path / "rollouts.jsonl"
    append_jsonl(path, [{k: v for k, v in row.items() if k != "question"}])
    write_rows(tmp_path / "new.jsonl", read_rows(path))
    for file in (path, tmp_path / "new.jsonl"):
        assert StoredResponses.read(file).brings_questions
        assert read_file(file)[0]["truth"] == "2"


@pytest.mark.parametrize("new", [False, True])
def test_a_report_reads_the_samples_of_both_versions(tmp_path, new):
    row = new_row(SAMPLE) if new else SAMPLE
    append_rows(tmp_path / "samples.jsonl", [row])
    summary = {"n": 1, "metric": "accuracy", "value": 1.0, "metrics": {"answer": 1.0}}
    found = EvalResult("a", 0, tmp_path, summary)
    assert found.scores("accuracy") == found.scores("answer") == {"a-0": 1.0}
