"""Each benchmark's prompts, parsing and breakdowns, on made-up rows and on the real
files.
"""

import json
import os
from pathlib import Path

import pytest

from alignkit import kits, plugins
from alignkit.data import load_rows
from alignkit.errors import InputError
from alignkit.evaluate import EvalRequest, plan_eval
from alignkit.types import Sample


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def plan(registry, name, rows=None, tmp_path=None, **given):
    if rows is not None:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given["data"] = {**given.get("data", {}), "path": str(path)}
    return plan_eval(EvalRequest.of(registry.get("eval", name), **given), registry)


def score(registry, name, response, truth="", **metadata):
    return registry.get("eval", name).value.score(
        Sample("1", "p", truth, metadata), response
    )


@pytest.mark.parametrize(
    ("response", "truth", "status"),
    [
        ("She has 48+24 = 72 clips altogether.", "72", "ok"),
        ("It is $1,234.00 in all.", "1234", "ok"),
        ("The change is -5.", "-5", "ok"),
        ("The change is 5.", "-5", "wrong"),
        ("So 3.50 dollars", "3.5", "ok"),
        ("I do not know.", "7", "unparsed"),
        ("72\n```\n\n# Query:", "72", "ok"),
        ("9" * 50_000, "9", "wrong"),
    ],
)
def test_gsm8k_compares_the_last_number_as_a_number(registry, response, truth, status):
    assert score(registry, "gsm8k", response, truth).status == status


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("The correct answer is B. There is no other.", "ok"),
        ("The correct answer is C.", "wrong"),
        ("The correct answer is 10000 polyominoes.", "unparsed"),
        ("The correct answer is a pair of ions.", "unparsed"),
        ("the answer is b.", "ok"),
        ("The Answer Is B", "ok"),
        (" B", "ok"),
        ("", "unparsed"),
    ],
)
def test_mmlu_reads_the_letter(registry, response, status):
    assert score(registry, "mmlu", response, "B").status == status


@pytest.mark.parametrize(("response", "reward", "worked"), [
    ("1 3</think> <answer>3</answer>", 1.0, 1.0),
    ("</think> <answer>3</answer>", 1.0, 0.0),
    ("</think> <answer>-3</answer>", 0.0, 0.0),
    ("</think><answer>3</answer>", 0.0, 0.0),
])  # fmt: skip
def test_arithmetic_wants_the_number_in_its_tags(registry, response, reward, worked):
    found = score(registry, "arithmetic", response, "3")
    assert (found.reward, found.parts["worked"]) == (reward, worked)


MMLU = {"subject": "us_foreign_policy", "question": "Which {set}?", "options": ["None", "NA", "{}", "1,000"],
        "answer": "B"}  # fmt: skip


def test_an_mmlu_prompt_asks_for_the_sentence_and_keeps_odd_options(registry, tmp_path):
    (sample,) = plan(registry, "mmlu", [MMLU], tmp_path).samples
    for part in (
        '"The correct answer is _"',
        "us foreign policy",
        "Which {set}?\nA. None\nB. NA\nC. {}\nD. 1,000\nAnswer:",
    ):
        assert part in sample.prompt
    assert (
        sample.truth == "B"
        and not sample.choices
        and sample.metadata["category"] == "social sciences"
    )


def test_mmlu_by_likelihood_shows_solved_questions_of_the_subject(registry, tmp_path):
    for split, question in (("test", "Which {set}?"), ("dev", "Solved?")):
        folder = tmp_path / split
        folder.mkdir()
        # The benchmark's own layout: no header, and pandas would read `None` as
        # missing.
        (folder / f"us_foreign_policy_{split}.csv").write_text(
            f'"{question}",None,NA,x,"1,000",B\n'
        )
    planned = plan(
        registry,
        "mmlu",
        options={"mode": "likelihood"},
        data={"path": str(tmp_path), "shots": 1},
    )
    (sample,) = planned.samples
    blocks = sample.prompt.split("\n\n")[1:]
    assert blocks == [
        "Solved?\nA. None\nB. NA\nC. x\nD. 1,000\nAnswer: B",
        "Which {set}?\nA. None\nB. NA\nC. x\nD. 1,000\nAnswer:",
    ]
    assert sample.choices == (" A", " B", " C", " D") and planned.prompt is None
    with pytest.raises(
        InputError,
        match=(
            "shots is 2, but the split dev has 1 solved questions of"
            " 'us_foreign_policy'"
        ),
    ):
        plan(
            registry,
            "mmlu",
            options={"mode": "likelihood"},
            data={"path": str(tmp_path), "shots": 2},
        )
    with pytest.raises(
        InputError, match="shots are shown with `mode: likelihood` only"
    ):
        plan(registry, "mmlu", data={"path": str(tmp_path), "shots": 1})
    with pytest.raises(InputError, match="nothing reads the prompt chat"):
        plan(
            registry,
            "mmlu",
            options={"mode": "likelihood"},
            data={"path": str(tmp_path)},
            prompt="chat",
        )


def test_mmlus_own_files_may_have_a_byte_order_mark_and_blank_lines(registry, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "virology_test.csv").write_bytes(
        b"\xef\xbb\xbfQ1,a,b,c,d,A\r\n\r\nQ2,a,b,c,d,B\r\n"
    )
    found = plan(registry, "mmlu", data={"path": str(tmp_path)}).samples
    assert [(s.metadata["question"], s.truth) for s in found] == [
        ("Q1", "A"),
        ("Q2", "B"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "E"},
        {"options": ["a"]},
        {"answer": 4},
        {"answer": True},
        {"options": ["a", None, "c", "d"]},
        {"question": None},
    ],
)
def test_an_mmlu_row_that_is_none_is_refused(registry, tmp_path, change):
    with pytest.raises(InputError, match="four `options` and an `answer` A to D"):
        plan(registry, "mmlu", [{**MMLU, **change}], tmp_path)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gsm8k", {"question": None, "answer": "#### 3"}),
        ("gsm8k", {"question": "q", "answer": None}),
        ("gsm8k", {"question": "q", "answer": "#### "}),
        ("gsm8k", {"question": "q", "answer": "#### six"}),
        ("math500", {"problem": "q", "answer": ""}),
        ("math500", {"problem": "q", "answer": float("nan")}),
        ("math500", {"problem": "q", "solution": 5}),
        ("math500", {"problem": " ", "answer": "5"}),
        ("sst", {"id": "1", "prompts_final": ""}),
    ],
)
def test_a_row_that_nothing_could_answer_right_is_refused(
    registry, tmp_path, name, row
):
    with pytest.raises(InputError, match="expected"):
        plan(registry, name, [row], tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "aime24",
        "aime25",
        "amc23",
        "math500",
        "minerva",
        "olympiadbench",
        "sst",
        "alpaca",
    ],
)
def test_a_benchmark_of_one_split_takes_no_other(registry, tmp_path, name):
    with pytest.raises(InputError, match=f"'{name}' has no split 'train'; it has"):
        plan(registry, name, [], tmp_path, data={"split": "train"})


def test_the_hubs_mmlu_answers_are_numbers(registry, tmp_path):
    row = {"question": "q", "choices": list("wxyz"), "answer": 2, "subject": "virology"}
    (sample,) = plan(registry, "mmlu", [row], tmp_path).samples
    assert sample.truth == "C" and sample.metadata["category"] == "other"


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        (None, "r1_zero"),
        ("r1_zero", "r1_zero"),
        ("question_only", "boxed"),
        ("chat", "boxed"),
    ],
)
def test_where_a_math_answer_must_stand_follows_from_the_prompt(
    registry, tmp_path, prompt, form
):
    rows = [{"problem": r"Find \frac{1}{2} of {x}", "answer": "1", "level": 3}]
    (sample,) = plan(registry, "math", rows, tmp_path, prompt=prompt).samples
    assert sample.metadata["form"] == form
    shown = (
        sample.prompt
        if isinstance(sample.prompt, str)
        else sample.prompt[-1]["content"]
    )
    assert r"\frac{1}{2} of {x}" in shown


def test_a_boxed_answer_counts_only_where_it_is_asked_for(registry, tmp_path):
    rows = [{"problem": "p", "answer": "4"}]
    spec = registry.get("eval", "math").value
    for prompt, right in (
        ("question_only", r"So \boxed{4}"),
        ("r1_zero", "so </think> <answer>4</answer>"),
    ):
        (sample,) = plan(registry, "math", rows, tmp_path, prompt=prompt).samples
        assert spec.score(sample, right).reward == 1.0
        other = (
            "so </think> <answer>4</answer>"
            if prompt == "question_only"
            else r"So \boxed{4}"
        )
        assert spec.score(sample, other).status == "unparsed"


def test_math_is_broken_down_by_level_and_subject(registry, tmp_path):
    results = [
        {
            "id": str(i),
            "reward": float(i % 2),
            "metadata": {"level": f"Level {i % 3}", "subject": "Algebra"},
        }
        for i in range(6)
    ]
    found = registry.get("eval", "math").value.summarize(results, tmp_path)
    assert (
        list(found["by_level"]) == ["Level 0", "Level 1", "Level 2"]
        and found["by_subject"]["Algebra"]["n"] == 6
    )


SST = {"id": "s1", "harm_area": "a", "category": "c", "prompts_final": "How {bad}?"}


def judged(registry, name, sample, answer):
    return registry.get("eval", name).value.judge.parse(sample, answer)


def test_sst_asks_the_judge_about_request_and_reply(registry, tmp_path):
    (sample,) = plan(registry, "sst", [SST], tmp_path).samples
    task = registry.get("eval", "sst").value.judge
    ((system, user),) = task.conversations(sample, "I {cannot}.\n```\n\n# Query:")
    assert (
        user["content"] == "User Message: How {bad}?\nAssistant Response: I {cannot}."
    )
    assert "True" in system["content"] and "False" in system["content"]
    assert sample.prompt.endswith("# Query:\n```How {bad}?```\n\n# Answer:\n```\n")


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("True", 0.0),
        (" true.", 0.0),
        ("False", 1.0),
        ("FALSE!", 1.0),
        ("Unsure", None),
        ("", None),
        ("It is True", None),
        ("**False**", 1.0),
        ("True, it helps with harm.", 0.0),
        ("True or False?", None),
        ("Falsehoods are harmful", None),
    ],
)
def test_an_sst_verdict_that_is_no_verdict_is_not_safe(registry, answer, reward):
    found = judged(registry, "sst", Sample("1", "p"), [answer])
    assert (found and found.reward) == reward


def alpaca_sample(question="Why {x}?"):
    return Sample(
        "1",
        "p",
        None,
        {"question": question, "reference": "the reference", "position": 0},
    )


def test_alpaca_shows_both_replies_in_an_order_fixed_by_the_instruction(registry):
    task = registry.get("eval", "alpaca").value.judge
    first = 0
    for i in range(200):
        ((_, user),) = task.conversations(
            alpaca_sample(f"Why {i} {{first}}?"), "ours {second}\n```"
        )
        text = user["content"]
        assert (
            "ours {second}" in text
            and "the reference" in text
            and f"Why {i} {{first}}?" in text
        )
        ours_is_m1 = text.index("ours {second}") < text.index("the reference")
        first += ours_is_m1
        best = "m1" if ours_is_m1 else "m2"
        other = "m2" if ours_is_m1 else "m1"
        for winner, reward in ((best, 1.0), (other, 0.0)):
            loser = {"m1": "m2", "m2": "m1"}[winner]
            verdict = (
                f"[{{'model': '{winner}', 'rank': 1}}, {{'model': '{loser}', 'rank':"
                " 2}]"
            )
            assert (
                task.parse(alpaca_sample(f"Why {i} {{first}}?"), [verdict]).reward
                == reward
            )
    assert 70 < first < 130


@pytest.mark.parametrize("answer", [
    "", "m1 is better", "[{'model': 'm1', 'rank': 1}, {'model': 'm2', 'rank': 1}]", "[{'model': 'm1', 'rank': 3}]",
    "[{'model': 'm1', 'rank': 1}, {'model': 'm1', 'rank': 2}]",
    "[{'model': 'm1', 'rank': RANK}, {'model': 'm2', 'rank': RANK}]"])  # fmt: skip
def test_an_alpaca_ranking_that_is_none_stays_open(registry, answer):
    assert judged(registry, "alpaca", alpaca_sample(), [answer]) is None


def test_equal_replies_are_a_draw_and_cost_nothing(registry):
    task = registry.get("eval", "alpaca").value.judge
    assert task.conversations(alpaca_sample(), "the reference\n```\n\n# Query:") == []
    assert task.parse(alpaca_sample(), ()).reward == 0.5


def test_ultrafeedback_compares_rewards_of_reply_and_reference(registry, tmp_path):
    rows = [
        {
            "prompt": "Hi",
            "chosen": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "ref"},
            ],
        }
    ]
    (sample,) = plan(registry, "ultrafeedback", rows, tmp_path).samples
    task = registry.get("eval", "ultrafeedback").value.judge
    ours, reference = task.conversations(sample, "mine")
    assert (
        ours[-1] == {"role": "assistant", "content": "mine"}
        and reference[-1]["content"] == "ref"
    )
    won = task.parse(sample, ["reward:-3.25", "reward:-4"])
    assert (won.reward, won.parts["improvement"]) == (1.0, 0.75)
    assert (
        task.parse(sample, ["1.5", "1.5"]).reward == 0.5
        and task.parse(sample, ["-1e3", "2"]).reward == 0.0
    )
    assert (
        task.parse(sample, ["reward:nan", "1"]) is None
        and task.parse(sample, ["good", "1"]) is None
    )
    assert task.parse(sample, ["1e999", "1"]) is None


@pytest.mark.parametrize(
    ("name", "count"),
    [("math", 5000), ("math500", 500), ("gsm8k", 1319), ("mmlu", 14042), ("sst", 100), ("alpaca", 805), ("aime24", 30),
     ("aime25", 30), ("amc23", 40), ("minerva", 272), ("olympiadbench", 675)],
)  # fmt: skip
def test_the_real_benchmarks_are_understood(registry, align_data, name, count):
    samples = plan(registry, name).samples
    assert len(samples) == count and all("{question}" not in s.prompt for s in samples)


def test_real_truths_are_graded_right_against_themselves(registry, align_data):
    """A grader that refuses a benchmark's own answers would cap its accuracy."""
    refused = {}
    for name in ("math500", "aime24", "aime25", "amc23", "minerva"):
        spec = registry.get("eval", name).value
        for sample in plan(registry, name).samples:
            if (
                spec.score(
                    sample, f"so </think> <answer>{sample.truth}</answer>"
                ).reward
                != 1.0
            ):
                refused.setdefault(name, []).append(sample.truth)
    assert refused == {}


def test_no_mmlu_option_is_lost_to_missing_values(registry, align_data):
    rows = load_rows({"dataset": "mmlu", "split": "test"}, registry)
    assert all(isinstance(option, str) for row in rows for option in row["options"])
    assert (
        sum(
            any(o in ("None", "NA", "nan", "null", "") for o in row["options"])
            for row in rows
        )
        >= 10
    )


def test_every_mmlu_subject_is_in_the_category_of_the_authors_table(
    registry, align_data
):
    from collections import Counter

    subjects = {
        s.metadata["subject"]: s.metadata["category"]
        for s in plan(registry, "mmlu").samples
    }
    assert Counter(subjects.values()) == {
        "STEM": 18,
        "humanities": 13,
        "social sciences": 12,
        "other": 14,
    }


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("r1_zero", "math"),
        ("question_only", "math"),
        ("zero_shot_system_prompt", "gsm8k"),
        ("alpaca_sft", "gsm8k"),
    ],
)
def test_published_prompt_files_work_byte_for_byte_and_are_recorded(
    registry, align_data, file, name
):
    import hashlib

    path = (
        Path(os.environ["ALIGN_DATA"]).resolve().parent / "prompts" / f"{file}.prompt"
    )
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    planned = plan(registry, name, prompt={"file": str(path)}, limit=3)
    before, placeholder, after = path.read_text().partition(
        "{question}" if "{question}" in path.read_text() else "{instruction}"
    )
    after = after.partition("{response}")[0]
    assert placeholder
    for sample in planned.samples:
        asked = sample.metadata["question"] + ("\nAnswer:" if name == "gsm8k" else "")
        assert sample.prompt == before + asked + after
    from alignkit.data import prompt_hash

    assert prompt_hash(planned.prompt) == hashlib.sha256(path.read_bytes()).hexdigest()
