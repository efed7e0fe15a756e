"""What the evals read in a reply: the letter, the number, and nothing of the thinking."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from alignkit.kits.builtin.evals._letters import committed_letter
from alignkit.kits.builtin.evals._numbers import stated_number
from click.testing import CliRunner

from alignkit.cli import cli
from alignkit.thinking import behind_thinking

LETTERS = {
    "The correct answer is **C**.": "C",
    "The correct answer is $\\boxed{C}$.": "C",
    "so $\\boxed{\\text{C}}$": "C",
    "The answer is $C$": "C",
    'The correct answer is "C".': "C",
    "The correct answer is [C].": "C",
    "The correct answer is _C_.": "C",
    "The correct answer is (c).": "C",
    "The correct answer is option C: Rome.": "C",
    "option C": "C",
    "Answer: C": "C",
    "ANSWER: **C**": "C",
    "**Answer:** C": "C",
    "answer: c\n": "C",
    "(C) Rome": "C",
    "**C.** Rome": "C",
    "C - Rome": "C",
    "c": "C",
    "C\n\nExplanation: a long one": "C",
    "A, as … no, wait. The correct answer is C.": "C",
    "The answer is C. Note that A is tempting.": "C",
    "The answer is C because a car moves.": "C",
    "The correct answer is not A; it is C.": "C",
    "The correct answer is A common belief, but C.": "C",
    "The correct answer is Ｃ.": "C",
    "The answer is A": "A",
    "The answer is A because of gravity.": "A",
    "Answer: C\n\nQuestion: the next?\nAnswer: D": "C",
    "The correct answer is B and C.": "several",
    "The answer is B or C": "several",
    "A. B. C. D.": "several",
    "The correct answer is E.": None,
    "the answer is a pair of ions": None,
    "I cannot say.": None,
    "": None,
}
NUMBERS = {
    "16 - 3 - 4 = 9, so 18": 18,
    "#### 18": 18,
    "#### 18\nQuestion: another\n#### 20": 18,
    "She makes 18\n\nQ: another one\nA: 20": 18,
    "\\boxed{18}": 18,
    "\\boxed{\\frac{1}{2}}": Fraction(1, 2),
    "The answer is 18. (This took 3 steps.)": 18,
    "The answer is 18 because 9*2=18 and not 20": 18,
    "The answer is therefore:\n\n**72**": 72,
    "1.2e3": 1200,
    "She eats 1/2 of it.": Fraction(1, 2),
    "The answer is 1 000 000": 1_000_000,
    "The answer is 1\u202f000\u202f000": 1_000_000,
    "It is 10,00,000": 1_000_000,
    "It is 1.000.000": 1_000_000,
    "It costs $1,234.50.": Fraction("1234.5"),
    "It is ４２": 42,
    "答案是42。": 42,
    "The answer is 20%.": 20,
    "It is -3.": -3,
    "It is \u22123": -3,
    "x=5-": 5,
    "The range is 5-10": 10,
    "the 18th": 18,
    "18 dollars": 18,
    "none at all": None,
}


@pytest.mark.parametrize("reply", LETTERS)
def test_the_letter_that_a_reply_commits_itself_to(reply: str):
    assert committed_letter(reply) == LETTERS[reply]


@pytest.mark.parametrize("reply", NUMBERS)
def test_the_number_that_a_reply_states(reply: str):
    assert stated_number(reply) == NUMBERS[reply]


@pytest.mark.parametrize(
    ("response", "prompt", "reply"),
    [
        ("plain", "", "plain"),
        ("<think>a</think> b", "", " b"),
        ("a</think> b", "… <think>\n", " b"),
        ("<think>a</think> b <think>c</think> d", "", " d"),
        ("<think>a", "", None),
        ("a", "Assistant: <think>", None),
        ("a", [{"role": "assistant", "content": "<think>"}], None),
        ("a", [{"role": "user", "content": "say <think> twice"}], "a"),
    ],
)
def test_a_reply_is_what_stands_behind_the_thinking(response, prompt, reply):
    assert behind_thinking(response, prompt) == reply


def evaluated(folder, name: str, rows: list[dict], *flags: str) -> tuple[dict, list]:
    file = folder / "responses.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "out"
    command = [
        "eval",
        name,
        "--responses",
        str(file),
        "--out",
        str(out),
        "--json",
        *flags,
    ]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    (summary,) = json.loads(result.stdout)
    (samples,) = out.rglob("samples.jsonl")
    return summary, [json.loads(line) for line in samples.read_text().splitlines()]


GSM8K = [
    {
        "question": "a?",
        "truth": "18",
        "response": "<think>\\boxed{18}</think> It is 17.",
    },
    {
        "question": "b?",
        "truth": "9\n#### 18",
        "response": "The answer is 18. (3 steps)",
    },
    {"question": "c?", "truth": "18", "response": "<think>it must be 18"},
    {"question": "d?", "truth": "1", "response": "<think>2</think> 1"},
]


def test_thinking_counts_in_no_score_and_an_unfinished_one_has_no_answer(tmp_path):
    summary, rows = evaluated(tmp_path, "gsm8k", GSM8K)
    assert [row["reward"] for row in rows] == [0, 1, 0, 1]
    assert [row["status"] for row in rows] == ["wrong", "ok", "unparsed", "ok"]
    assert rows[2]["stage"] == "reasoning"
    assert summary["provenance"]["grader"]["reasoning"] == "strip"
    # the published rule reads 3 in the second
    assert summary["breakdown"]["read_differently"] == 1


def test_thinking_is_scored_where_that_is_asked_for(tmp_path):
    summary, rows = evaluated(tmp_path, "gsm8k", GSM8K, "--reasoning", "keep")
    assert rows[2]["status"] == "ok"
    assert summary["provenance"]["grader"]["reasoning"] == "keep"


def test_the_published_rule_stays_under_its_name(tmp_path):
    _, rows = evaluated(tmp_path, "gsm8k", GSM8K, "--set", "parse=published")
    assert [row["reward"] for row in rows] == [0, 0, 0, 1]


def test_gsm8k_is_measured_in_the_form_that_is_trained(tmp_path):
    rows = [
        {
            "question": "a?",
            "truth": "18",
            "response": "9*2 </think> <answer>18</answer>",
        },
        {"question": "b?", "truth": "18", "response": "9*2 is 18"},
    ]
    _, tags = evaluated(tmp_path, "gsm8k", rows, "--grader", "tags")
    assert [row["reward"] for row in tags] == [1, 0]
    assert tags[1]["status"] == "unparsed"
