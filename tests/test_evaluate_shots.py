"""Solved questions shown before generated answers: drawn by the seed, never the question
itself, part of the provenance; refused where there are none.
"""

import json

import pytest
from servers import OpenAIServer, say

from alignkit import kits, plugins
from alignkit.engines.openai import OpenAIEngine
from alignkit.errors import InputError
from alignkit.evaluate import (
    EvalRequest,
    StoredResponses,
    evaluate,
    own_request,
    plan_eval,
)
from alignkit.report.comparability import MEASURED_BY, _fields

WORDS = ["one", "two", "three", "four", "five", "six"]


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """GSM8K and MATH made up; the first question of the test is in the train split too."""

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    for split in ("test", "train"):
        numbers = range(1, 7) if split == "train" else (1, 10, 11)
        sums = [
            {"question": f"Twice {n}?", "answer": f"{n}+{n}\n#### {2 * n}"}
            for n in numbers
        ]
        write(f"gsm8k_{split}.jsonl", sums)
    problems = [
        {
            "problem": f"Half of {n}?",
            "solution": rf"So $\boxed{{{n // 2}}}$.",
            "answer": str(n // 2),
        }
        for n in range(0, 12, 2)
    ]
    write("math_train7500.jsonl", problems)
    write("math_test5k.jsonl", problems[:1])
    write("math500.jsonl", problems[:2])
    write(
        "rows.jsonl",
        [{"question": w, "truth": w, "response": f"it is {w}"} for w in WORDS],
    )
    write("bare.jsonl", [{"question": w, "truth": w} for w in WORDS])
    monkeypatch.setenv("ALIGN_DATA", str(tmp_path))
    return tmp_path


def plan(registry, name, responses=None, **given):
    return plan_eval(
        EvalRequest.of(registry.get("eval", name), **given), registry, responses
    )


def mine(registry, folder, name="rows.jsonl", **given):
    data = {"dataset": "jsonl", "path": str(folder / name)}
    reward = registry.get("reward", "exact_match")
    given = {"prompt": "question_only", **given}
    return plan_eval(own_request("mine", reward, {}, data, **given), registry)


def test_examples_are_of_the_train_split_and_never_the_question_itself(
    registry, folder
):
    plain = plan(registry, "gsm8k")
    planned = plan(registry, "gsm8k", shots=5)
    for bare, shown in zip(plain.samples, planned.samples, strict=True):
        examples = shown.prompt.removesuffix(bare.prompt)
        assert examples + bare.prompt == shown.prompt and shown.id == bare.id
        asked = bare.metadata["question"]
        assert shown.prompt.count(asked) == 1, "the question stands once, and last"
        assert examples.count("#### ") == 5 and "\n#### 4\n```\n\n" in examples
        assert examples.count("```") % 2 == 0, "each example closes its fence"
    assert planned.sha256 == plain.sha256, "what is asked is the same"


def test_examples_are_drawn_by_the_seed_and_more_of_them_hold_the_fewer(
    registry, folder
):
    drawn = {
        (seed, shots): plan(registry, "gsm8k", seed=seed, shots=shots).shots["examples"]
        for seed in range(6)
        for shots in (2, 4)
    }
    for seed in range(6):
        assert drawn[seed, 4][:2] == drawn[seed, 2] and len(set(drawn[seed, 4])) == 4
    assert len({tuple(names) for names in drawn.values()}) > 6
    assert plan(registry, "gsm8k", seed=3, shots=4).shots["examples"] == drawn[3, 4]


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("math", "r1_zero", r"<think> So $\boxed{M}$. </think> <answer> M </answer>"),
        ("math", "question_only", r"So $\boxed{M}$."),
        ("gsm8k", "r1_zero", "<think> N+N </think> <answer> M </answer>"),
        (
            "gsm8k",
            "question_only",
            r"N+N\nThe answer is $\boxed{M}$.".replace("\\n", "\n"),
        ),
        ("gsm8k", "alpaca", "### Response:\nN+N\n#### M\n"),
    ],
)
def test_an_example_is_answered_in_the_form_that_is_graded(
    registry, folder, name, prompt, answer
):
    forms = {"r1_zero": "tags", "question_only": "box", "alpaca": "number"}
    options = {"grader": forms[prompt]} if name == "gsm8k" else {}
    planned = plan(registry, name, prompt=prompt, options=options, shots=5)
    sums = {n: n if name == "math" else 2 * n for n in range(7)}
    texts = [answer.replace("N", str(n)).replace("M", str(m)) for n, m in sums.items()]
    assert sum(text in planned.samples[-1].prompt for text in texts) == 5
    spec, sample = registry.get("eval", name).value, planned.samples[-1]
    said = spec.example(sample, {"truth": sample.truth, "solution": "Because."})
    assert spec.score(sample, said).status == "ok", "and would be graded right"


def test_chat_examples_are_turns_and_the_system_message_stands_once(registry, folder):
    file = str(folder / "rows.jsonl")
    planned = mine(registry, folder, shots=2, shots_from=file, prompt="chat")
    for sample in planned.samples:
        roles = [message["role"] for message in sample.prompt]
        assert roles == ["user", "assistant", "user", "assistant", "user"]
        asked = [m["content"] for m in sample.prompt if m["role"] == "user"]
        assert asked[-1] == sample.truth and sample.truth not in asked[:-1]
        assert sample.prompt[1]["content"] == f"it is {asked[0]}"


def test_a_file_of_solved_questions_serves_in_the_place_of_a_train_split(
    registry, folder
):
    planned = plan(
        registry, "math500", shots=3, shots_from=str(folder / "math_train7500.jsonl")
    )
    assert planned.samples[0].prompt.count("</answer>\n\n") == 3
    own = mine(
        registry, folder, "bare.jsonl", shots=2, shots_from=str(folder / "rows.jsonl")
    )
    assert all(sample.prompt.count("it is") == 2 for sample in own.samples)


def test_examples_are_in_the_provenance_and_other_ones_are_other_settings(
    registry, folder, tmp_path
):
    out = tmp_path / "out"
    with OpenAIServer(say("#### 2")) as server:
        engine = OpenAIEngine("m", server.url, backoff=0.01)
        found = evaluate(plan(registry, "gsm8k", shots=2), engine, out)
        assert server.served[0]["prompt"].count("#### ") == 2
        with pytest.raises(InputError, match="other settings"):
            evaluate(plan(registry, "gsm8k", shots=3), engine, out)
        other = evaluate(plan(registry, "gsm8k", shots=2, seed=1), engine, out / "1")
        none = evaluate(plan(registry, "gsm8k"), engine, out / "0")
    known = found["provenance"]["shots"]
    assert (
        known["n"] == 2 and len(known["examples"]) == 2 and len(known["sha256"]) == 64
    )

    def compared(summary):
        return [_fields(name, summary["provenance"]) for name in MEASURED_BY]

    assert compared(found) == compared(other), "another draw by the same settings"
    assert compared(found) != compared(none)


def test_a_dataset_that_shows_examples_itself_is_handed_their_number(registry, folder):
    questions = [
        {
            "question": f"{n}?",
            "options": list("1234"),
            "answer": "A",
            "subject": "anatomy",
        }
        for n in range(4)
    ]
    for split in ("test", "dev"):
        text = "".join(json.dumps(row) + "\n" for row in questions)
        (folder / f"mmlu_{split}.jsonl").write_text(text)
    planned = plan(registry, "mmlu", options={"mode": "likelihood"}, shots=2)
    assert (
        planned.data["shots"] == 2 and planned.samples[0].prompt.count("Answer: A") == 2
    )
    with pytest.raises(InputError, match="draws its shots itself"):
        plan(registry, "mmlu", shots=2, shots_from="x.jsonl")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("math500", {"shots": 2}, "has no train split to draw shots from"),
        ("gsm8k", {"shots": 6}, "there are 5 solved questions besides gsm8k-0"),
        ("gsm8k", {"shots_from": "x.jsonl"}, "but not how many"),
        ("arithmetic", {"shots": 2, "shots_from": "x.jsonl"}, "takes no path"),
        ("mmlu", {"shots": 2, "data": {"shots": 2}}, "say their number once"),
    ],
)
def test_where_no_examples_can_be_had_it_is_said(registry, folder, name, given, said):
    with pytest.raises(InputError) as refused:
        plan(registry, name, **given)
    assert said in str(refused.value)


def test_rows_of_ones_own_need_solved_ones_and_stored_responses_need_none(
    registry, folder
):
    with pytest.raises(InputError, match="its rows are the questions themselves"):
        mine(registry, folder, "bare.jsonl", shots=2)
    with pytest.raises(InputError, match="text `response`; row"):
        mine(registry, folder, shots=2, shots_from=str(folder / "bare.jsonl"))
    stored = StoredResponses.read(folder / "rows.jsonl")
    with pytest.raises(InputError, match="nothing reads shots"):
        plan(registry, "gsm8k", stored, shots=2)
