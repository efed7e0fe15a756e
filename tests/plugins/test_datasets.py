"""The built-in datasets and prompts: their contracts, on made-up rows and, where given,
on the real files.
"""

import gzip
import json
import os
import re

import pytest

from alignkit import kits, plugins
from alignkit.data import load_prompt, load_rows
from alignkit.errors import AlignError, InputError

real = pytest.mark.skipif(
    "ALIGN_DATA" not in os.environ,
    reason="set ALIGN_DATA to the folder of benchmark files",
)


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def test_arithmetic_has_the_quickstart_contract(registry):
    rows = load_rows({"dataset": "arithmetic", "size": 4000}, registry)
    worked = 0
    for row in rows:
        digits = [
            int(d)
            for d in re.fullmatch(
                r"(\d)\+(\d)\+(\d)\+(\d)=\?", row["question"]
            ).groups()
        ]
        assert row["truth"] == str(sum(digits))
        thought, answer = re.fullmatch(
            r"(.*)</think> <answer>(-?\d+)</answer>", row["response"]
        ).groups()
        if thought:
            sums = [sum(digits[: n + 1]) for n in range(4)]
            assert thought == " ".join(map(str, sums)) and answer == row["truth"]
            worked += 1
        else:
            assert abs(int(answer) - sum(digits)) <= 9
    assert 0.36 < worked / len(rows) < 0.44


def test_no_held_out_problem_is_trained_on_and_the_held_out_ones_are_the_same_for_every_seed(
    registry,
):
    def questions(**spec):
        return [
            r["question"]
            for r in load_rows({"dataset": "arithmetic", **spec}, registry)
        ]

    test = questions(split="test", seed=1)
    assert not set(test) & set(questions(seed=1))
    assert test == questions(split="test", seed=2) and len(set(test)) == 1000


def test_gsm8k_truths_lose_their_thousands_separators(tmp_path, registry):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"question": "q", "answer": "about #### no\n#### 1,234"})
    )
    (row,) = load_rows(
        {"dataset": "gsm8k", "path": str(tmp_path / "a.jsonl")}, registry
    )
    assert (row["truth"], row["solution"]) == ("1234", "about #### no")


def test_gsm8k_rows_without_the_mark_are_refused(tmp_path, registry):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "q", "answer": "12"}))
    with pytest.raises(InputError, match="GSM8K row 1"):
        load_rows({"dataset": "gsm8k", "path": str(tmp_path / "a.jsonl")}, registry)


def test_math_takes_the_answer_from_the_box_where_there_is_no_answer(
    tmp_path, registry
):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"problem": "p", "solution": r"\boxed{\sqrt{2}}", "type": "Algebra"})
    )
    (row,) = load_rows({"dataset": "math", "path": str(tmp_path / "a.jsonl")}, registry)
    assert (row["question"], row["truth"], row["subject"]) == (
        "p",
        r"\sqrt{2}",
        "Algebra",
    )


def test_rows_with_an_empty_answer_are_left_out_and_named(registry, tmp_path, caplog):
    rows = [
        {"problem": f"p{i}", "answer": "" if i in (1, 3) else str(i)} for i in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = load_rows({"dataset": "math", "path": str(tmp_path / "a.jsonl")}, registry)
    assert [row["truth"] for row in kept] == ["0", "2", "4"]
    assert "2 rows left out, as their answer is empty: 2, 4" in caplog.text


@pytest.mark.parametrize(
    ("name", "ends", "stop"),
    [
        ("r1_zero", "User: {question}\nAssistant: <think>", ("</answer>",)),
        ("arithmetic", "User: {question}\nAssistant: <think>", ("</answer>",)),
        ("question_only", "{question}", ()),
        (
            "alpaca",
            "### Instruction:\n{instruction}\n\n### Response:\n{response}\n",
            (),
        ),
        (
            "zero_shot_system",
            "# Query:\n```{instruction}```\n\n# Answer:\n```\n",
            ("# Query:",),
        ),
    ],
)
def test_prompts_end_and_stop_as_the_published_ones_do(registry, name, ends, stop):
    prompt = load_prompt(name, registry)
    assert prompt.template.endswith(ends) and prompt.stop == stop


@real
@pytest.mark.parametrize(
    ("dataset", "split", "count", "columns"),
    [
        ("math", "train", 7498, {"question", "truth", "level", "subject"}),
        ("math", "test", 5000, {"question", "truth", "level", "subject", "solution"}),
        ("math", "sft", 1767, {"prompt", "response", "truth"}),
        ("gsm8k", "train", 7473, {"question", "truth", "solution"}),
        ("gsm8k", "test", 1319, {"question", "truth", "solution"}),
    ],
)
def test_the_real_files_are_understood(registry, dataset, split, count, columns):
    rows = load_rows({"dataset": dataset, "split": split}, registry)
    assert len(rows) == count
    assert all(columns <= row.keys() and None not in row.values() for row in rows)


@real
def test_real_gsm8k_truths_are_plain_numbers(registry):
    for split in ("train", "test"):
        rows = load_rows({"dataset": "gsm8k", "split": split}, registry)
        assert [
            r["truth"] for r in rows if not re.fullmatch(r"-?\d+(\.\d+)?", r["truth"])
        ] == []


def test_the_first_rows_of_hh_are_of_all_its_sources(tmp_path, monkeypatch, registry):
    turn = "\n\nHuman: {}\n\nAssistant: "
    for source in ("harmless-base", "helpful-base"):
        (tmp_path / "hh" / source).mkdir(parents=True)
        rows = [
            {"chosen": turn.format(i) + "a", "rejected": turn.format(i) + "b"}
            for i in range(3)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "hh" / source / "test.jsonl").write_text(text)
    monkeypatch.setenv("ALIGN_DATA", str(tmp_path))
    spec = {
        "dataset": "hh",
        "split": "test",
        "sources": ["harmless-base", "helpful-base"],
        "limit": 4,
    }
    assert [row["source"] for row in load_rows(spec, registry)] == [
        "harmless-base",
        "helpful-base",
    ] * 2


def test_the_data_folder_of_the_course_is_read_as_it_is(
    tmp_path, monkeypatch, registry
):
    """Comparisons without folders of splits, and a folder for SimpleSafetyTests."""
    monkeypatch.setenv("ALIGN_DATA", str(tmp_path))
    (tmp_path / "hh").mkdir()
    pair = {
        "chosen": "\n\nHuman: q\n\nAssistant: a",
        "rejected": "\n\nHuman: q\n\nAssistant: b",
    }
    for source in ("harmless-base", "helpful-online"):
        packed = gzip.compress((json.dumps(pair) + "\n").encode())
        (tmp_path / "hh" / f"{source}.jsonl.gz").write_bytes(packed)
    spec = {"dataset": "hh", "sources": ["harmless-base", "helpful-online"]}
    assert [row["chosen"] for row in load_rows(spec, registry)] == ["a", "a"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AlignError):  # no training rows in the place of held-out ones
        load_rows({**spec, "split": "test"}, registry)
    (tmp_path / "simple_safety_tests").mkdir()
    (tmp_path / "simple_safety_tests" / "simple_safety_tests.csv").write_text(
        "id,harm_area,category,prompts_final\ns1,area,kind,May I?\n"
    )
    (row,) = load_rows({"dataset": "sst", "split": "test"}, registry)
    assert row["question"] == "May I?"


def test_published_traces_are_all_or_the_right_ones(tmp_path, registry):
    def write(name, *rows):
        (tmp_path / name).write_text(json.dumps(rows))

    row = {"problem": "1+1", "reasoning_trace": " 2", "expected_answer": 2}
    write("sft_gpt-oss-120b.jsonl", row, row)
    write("sft_gpt-oss-120b_filtered.jsonl", row)
    spec = {"dataset": "math_traces", "path": str(tmp_path)}
    rows = load_rows(spec, registry)
    assert [(r["question"], r["response"], r["truth"]) for r in rows] == [
        ("1+1", " 2", "2")
    ] * 2
    assert len(load_rows({**spec, "traces": "filtered"}, registry)) == 1
    write("sft_gpt-oss-120b.jsonl", {"problem": "1+1", "expected_answer": 2})
    with pytest.raises(InputError, match=r"row 1: expected problem, reasoning_trace"):
        load_rows(spec, registry)
