r"""The grader `math`: answers and truths by what they mean."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from alignkit.kits.builtin.evals._math import math_rows
from answer_pairs import RIGHT, WRONG

from alignkit import grade, grade_math, grade_math_verify
from alignkit.grading.answer.final import final_answer
from alignkit.grading.truths import truth_texts


def boxed(answer: str) -> str:
    return f"So the answer is $\\boxed{{{answer}}}$."


def cases(table: dict[str, list[tuple[str, str]]]) -> list:
    return [
        pytest.param(answer, truth, id=f"{kind}-{number}")
        for kind, pairs in table.items()
        for number, (answer, truth) in enumerate(pairs)
    ]


@pytest.mark.parametrize(("answer", "truth"), cases(RIGHT))
def test_an_answer_of_the_truths_meaning_is_right(answer: str, truth: str):
    score = grade_math(boxed(answer), truth)
    assert (score.reward, score.status) == (1.0, "ok"), score.explanation


@pytest.mark.parametrize(("answer", "truth"), cases(WRONG))
def test_an_answer_of_another_meaning_is_wrong(answer: str, truth: str):
    score = grade_math(boxed(answer), truth)
    assert (score.reward, score.status) == (0.0, "wrong"), score.explanation


FINAL = {
    "the last box": ("First \\boxed{5}. No. It is \\boxed{7}.", ("7",)),
    "boxes side by side are a list": (
        "They are \\boxed{3} and $\\boxed{5}$.",
        ("3", "5"),
    ),
    "named boxes too": ("$x=\\boxed{3}$, $y = \\boxed{5}$", ("3", "5")),
    "boxes of two sentences are none": ("\\boxed{3} is small.\n\n\\boxed{5}", ("5",)),
    "a box in the thinking is none": (
        "<think>\\boxed{7}</think> The answer is 8.",
        ("8",),
    ),
    "a box in the prompt's thinking is none": (
        "so \\boxed{7}</think>\n\n\\boxed{8}",
        ("8",),
    ),
    "a later statement counts": ("\\boxed{7}. Wait, the answer is 8.", ("8",)),
    "one that names the box again does not": (
        "\\boxed{7}. Final answer: \\boxed{7}",
        ("7",),
    ),
    "an answer tag": ("a </think> <answer> 7 </answer>", ("7",)),
    "a box in the tag": ("<answer>It is \\boxed{7}</answer>", ("7",)),
    "a tag that does not end": ("<answer> 7", ("7",)),
    "a sign in front": ("It is $-\\boxed{7}$", ("-7",)),
    "a bullet is no sign": ("Thus:\n- \\boxed{7}", ("7",)),
    "a subtraction is no sign": ("3 -\\boxed{7}", ("7",)),
    "braces inside": ("\\boxed{\\frac{1}{\\sqrt{2}}}", ("\\frac{1}{\\sqrt{2}}",)),
    "no braces": ("so \\boxed 7.", ("7",)),
    "other boxes": ("\\fbox{7}", ("7",)),
    "empty boxes are passed over": ("\\boxed{7}, in \\boxed{}", ("7",)),
    "boxes that never close as well": ("\\boxed{7}, in \\boxed{8", ("7",)),
    "a statement": ("Hence the final answer is $\\frac12$. Done.", ("$\\frac12$",)),
    "in bold": ("**Answer:** 7", ("7",)),
    "as in GSM8K": ("16 - 3 = 13\n#### 18", ("18",)),
    "with its reason": ("The answer is 18 because 9*2=18 and not 20", ("18",)),
    "alone": ("42", ("42",)),
    "under a heading": ("### Final Answer\n\n42", ("42",)),
    "the last line, in bold": ("So there are 42 of them.\n\n**42**", ("42",)),
    "a sentence in the tag": ("<answer>The answer is 42.</answer>", ("42",)),
    "what it is the name of": ("The answer is the point $(1, 2)$.", ("$(1, 2)$",)),
    "behind a dash": ("Final answer – 42", ("42",)),
    "turned round": ("\\boxed{42}. However, 43 is the answer.", ("43",)),
    "a correction": ("\\boxed{42}. No: the answer should be 43.", ("43",)),
}


@pytest.mark.parametrize("name", FINAL)
def test_the_final_answer_is_found_as_a_careful_reader_would(name: str):
    response, texts = FINAL[name]
    final = final_answer(response)
    assert final is not None
    assert final.texts == texts


@pytest.mark.parametrize(
    "response",
    [
        "<think>It may be \\boxed{7}",
        "<think>the answer is 7",
        "I do not know what to say about this.",
        "Put it in \\boxed{}.",
        "\\boxed{7} is wrong.",
        "I think so.\n\n**I hope this helps!**",
        "",
    ],
)
def test_without_a_stated_answer_there_is_none(response: str):
    score = grade_math(response, "7")
    assert (score.reward, score.status, score.stage) == (0.0, "unparsed", "format")


@pytest.mark.parametrize(
    ("answer", "truth", "units", "right"),
    [
        ("5", "5\\text{ m}", "agree", True),
        ("5", "5\\text{ m}", "exact", False),
        ("5\\text{ m}", "5\\text{ m}", "exact", True),
        ("5\\text{ km}", "5\\text{ m}", "agree", False),
        ("5\\text{ km}", "5\\text{ m}", "ignore", True),
    ],
)
def test_units_count_as_the_option_says(answer, truth, units, right):
    assert grade_math(boxed(answer), truth, units=units).reward == right


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("42 \\text{ (or 43)}", "42", False),
        ("42 \\text{ (alternatively, 43)}", "42", False),
        ("42 \\approx 43", "42", False),
        ("42?43", "42", False),
        ("42 \\lor 43", "42", False),
        ("1 \\text{ and } 3", "1,3", True),
        ("x=1 \\text{ or } x=3", "1,3", True),
        ("\\frac13 \\approx 0.333", "\\frac13", True),
        ("x \\approx 42", "42", True),
    ],
)
def test_an_answer_that_hedges_is_wrong_and_a_list_is_none(answer, truth, right):
    assert grade_math(boxed(answer), truth).reward == right


def test_a_tolerance_is_relative():
    assert grade_math(boxed("3.14"), "\\pi", tolerance=1e-3).reward == 1
    assert grade_math(boxed("3.1"), "\\pi", tolerance=1e-3).reward == 0
    assert grade_math(boxed("1.0004e6"), "1000000", tolerance=1e-3).reward == 1


def test_a_verdict_says_where_the_answer_stood_and_what_decided():
    score = grade_math(boxed("0.50"), "\\frac12")
    assert score.stage == "value"
    assert score.explanation == "box: '0.50' for '\\\\frac12': compared exactly"
    assert grade_math(boxed("42 or 43"), ["42", "1"]).reward == 0
    assert grade_math(boxed("1"), ["42", "1"]).reward == 1


HOSTILE = [
    "9^{9^{9^9}}", "9" * 5000, "(" * 300 + "1" + ")" * 300, "\\frac" * 400, "{" * 900,
    "1!!!!!!!", "100000!", "(10^6)!!", "x^{10^9}", "((x+1)^{100})^{100}", "1/0", "0^{-1}",
    "\\log 0", "\\infty-\\infty", "1e99999999", "0.\\overline{}", "\\text{" * 100,
    ",".join(["1"] * 900), "\\cup".join(["(0,1)"] * 200), "=".join(["1"] * 500), "\\pm" * 50,
    "-" * 1500 + "1", "\\sin" * 300 + "x", "|" * 500, "[[[[[[[[1,2],3],4],5],6],7],8],9]",
    "\\tan\\frac{\\pi}{2}", "e^{e^{e^{e^e}}}", "\ud800", "\x00", "\\", "x_{", "\\sqrt[",
    "\\sqrt[0]{5}", "\\log_1 5", "(,)", "\\{,\\}", ",,,", "or or or", "1" + "\\,000" * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_gets_a_verdict_as_answer_and_as_truth(text: str):
    for other in ("5", "x+1", "(1,2)"):
        assert grade_math(boxed(text), other).reward == 0
        assert grade_math(boxed(other), text).reward == 0


SPELLINGS = {
    "box": "so $\\boxed{%s}$",
    "tag": "x </think> <answer> %s </answer>",
    "statement": "The final answer is $%s$.",
    "display": "\\[\\boxed{\\displaystyle %s}\\]",
    "dollars": "\\boxed{$%s$}",
    "colour": "\\boxed{\\color{red}{%s}}",
    "lines": "\\boxed{\n%s\n}",
    "full stop": "\\boxed{%s.}",
    "other box": "Therefore \\fbox{%s} is right.",
    "thin spaces": "\\boxed{\\,%s\\,}",
}
REWRITES = {
    "big fractions": lambda text: text.replace("\\frac", "\\dfrac"),
    "full-width digits": lambda text: text.translate(
        {ord("0") + n: 0xFF10 + n for n in range(10)}
    ),
}
TRUTHS = [
    "18", "-3", "1,080", "\\frac{3}{56}", "2\\sqrt{13}", "(-\\infty, 3)", "1, 2, 5", "x^2+1",
    "\\left( 3, \\frac{\\pi}{2} \\right)", "\\text{Evelyn}", "90^\\circ", "\\$32,348", "50\\%",
    "\\begin{pmatrix} -1 \\\\ 2 \\end{pmatrix}", "y = 2x - 4", "2516_8", "4.5e33", "3:2",
    "11\\sqrt2", "\\text{(C)}", "\\{1,2\\}", "[-2,7]", "\\cot x", "6 - 5i", "10\\text{ cm}^2",
]  # fmt: skip


def spellings(truth: str) -> Iterator[tuple[str, str]]:
    for name, form in SPELLINGS.items():
        yield name, form % truth
    for name, rewrite in REWRITES.items():
        yield name, boxed(rewrite(truth))


@pytest.mark.parametrize("truth", TRUTHS)
def test_a_truth_in_other_spellings_is_itself(truth: str):
    for name, response in spellings(truth):
        assert grade_math(response, truth).reward == 1, name


BENCHMARKS = ("math500", "gsm8k_test", "amc23", "minerva_math", "olympiadbench")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_truth_of_a_benchmark_is_itself_in_twelve_spellings(
    align_data: Path, name: str
):
    lines = (align_data / f"{name}.jsonl").read_text().splitlines()
    wrong, count = [], 0
    for row in math_rows(map(json.loads, lines), name):
        for truth in truth_texts(row["truth"]):
            for spelling, response in spellings(truth):
                count += 1
                if grade_math(response, truth).reward != 1:
                    wrong.append((spelling, truth))
    assert count > 400
    # "f(x) = …, where a is …" is cut where a statement gives its reasons
    assert len(wrong) <= 2, wrong


MODES = {
    "math": grade_math,
    "math_verify": grade_math_verify,
    "math_verify:boxes=set": functools.partial(grade_math_verify, boxes="set"),
    "question_only:fast=false": functools.partial(grade, form="boxed", fast=False),
    "question_only": functools.partial(grade, form="boxed"),
}


def test_labelled_pairs_are_graded_by_mathematics(capsys):
    folder = os.environ.get("ALIGN_CASES")
    if not folder:
        pytest.skip(
            "ALIGN_CASES is not set: the labelled pairs are not in the repository"
        )
    lines = (Path(folder) / "grading_pairs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    table = {}
    for name, mode in MODES.items():
        pairs = [
            (mode(row["response"], row["truth"]).reward == 1, row["label"])
            for row in rows
        ]
        right = sum(verdict == label for verdict, label in pairs) / len(rows)
        table[name] = (right, pairs.count((True, False)), pairs.count((False, True)))
    with capsys.disabled():
        print(f"\n{len(rows)} pairs | right | false positives | false negatives")
        for name, (right, accepted, refused) in table.items():
            print(f"| `{name}` | {right:.3f} | {accepted} | {refused} |")
    right, accepted, _ = table["math"]
    assert right >= 0.96
    assert accepted <= 1
