"""Grade a response against the truth: extract, normalise, compare; one Score with the
stage that decided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from alignkit.grading.equivalence import same_expression
from alignkit.grading.extract import (
    Form,
    extract_answer,
    has_r1_zero_format,
    last_boxed,
)
from alignkit.grading.math_verify_stage import (
    last_boxes,
    math_verify_equal,
    math_verify_verify,
    read_response,
    read_truth,
    too_large,
)
from alignkit.grading.normalize import MAX_CHARS, mathd, prm
from alignkit.grading.truths import truth_texts
from alignkit.types import Score

_SHOWN = 120  # characters of a text in an explanation


def grade(
    response: str,
    truth: object,
    *,
    form: Form = "r1_zero",
    fast: bool = True,
) -> Score:
    """1 for a response in the right format whose answer matches the truth, else 0.

    The verdicts are those of the grader published with Dr. GRPO (Liu et al. 2025).
    `form` says where the answer stands (`r1_zero`, `boxed` or `plain`); `fast=False`
    asks math-verify as a last stage. The truth is a text, a number, or a list of these
    (any matches).

    The parts `format_reward` and `answer_reward` are 0 or 1; the status is `unparsed`
    when there is no answer.
    """
    answer = extract_answer(response, form)
    if answer is None:
        well_formed = form == "r1_zero" and has_r1_zero_format(response)
        why = f"the format {form} is not kept: no answer"
        if well_formed:
            why = "a box that never closes"
        return Score(0.0, "unparsed", _parts(well_formed, False), "format", why)
    return grade_answer(answer, truth, fast=fast)


def grade_answer(answer: str, truth: object, *, fast: bool = True) -> Score:
    """Grade an answer that is already extracted; see `grade`."""
    score = Score(
        0.0, "wrong", _parts(True, False), "truth", "the truth holds no answer"
    )
    for text in truth_texts(truth):
        right, stage, why = matches(answer, text, fast=fast)
        if right:
            return Score(1.0, "ok", _parts(True, True), stage, why)
        score = replace(score, stage=stage, explanation=why)
    return replace(score, answer=mathd(answer)[:MAX_CHARS])


def grade_math_verify(
    response: str, truth: object, *, boxes: Literal["last", "set"] = "last"
) -> Score:
    r"""math-verify's own verdict on a response: its last formula or number that can be
    read, a box before others.

    `boxes`: of `\boxed{5}, no: \boxed{7}` the last one counts; with `set` it is the set
    of both, as math-verify reads it. Boxes that `and`, `or` or a comma lists are always
    a set. The last 20,000 characters are read. Its signal-based time-outs are off: the
    worker's deadline takes their place.
    """
    tail = response[-2 * MAX_CHARS :]
    if boxes == "last":
        tail = last_boxes(tail)
    if too_large(last_boxed(tail) or tail.rpartition("<answer>")[2][-500:]):
        return Score(
            0.0,
            "wrong",
            {"answer_reward": 0.0},
            "bounds",
            "a power or factorial too large to evaluate",
        )
    readings = read_response(tail)
    if not readings:
        return Score(
            0.0,
            "unparsed",
            {"answer_reward": 0.0},
            "math_verify",
            "no formula or number in the response",
        )
    right = any(
        math_verify_verify(read_truth(text), readings) for text in truth_texts(truth)
    )
    verb = "is" if right else "is not"
    why = f"{_shown(str(readings[-1]))} {verb} {_shown(str(truth))}"
    return Score(
        float(right),
        "ok" if right else "wrong",
        {"answer_reward": float(right)},
        "math_verify",
        why,
        str(readings[-1])[:MAX_CHARS],
    )


def matches(answer: str, truth: str, *, fast: bool = True) -> tuple[bool, str, str]:
    """Whether an answer matches a truth, the stage that decided, and an explanation."""
    if answer == truth:
        return True, "exact", "the same text"
    if max(len(answer), len(truth)) > MAX_CHARS:
        return (
            False,
            "length",
            f"an answer of {len(answer)} characters is compared as it stands",
        )
    ours, expected = mathd(answer), mathd(truth)
    if ours == expected:
        return True, "mathd", f"both are {_shown(ours)}"
    ours, expected = prm(answer), prm(truth)
    if ours == expected:
        return True, "prm800k", f"both are {_shown(ours)}"
    same, why = same_expression(expected, ours)
    stage = "sympy"
    if not same and not fast:
        (same, why), stage = math_verify_equal(truth, answer), "math_verify"
        ours, expected = answer, truth
    return (
        same,
        stage,
        f"{_shown(ours)} {'is' if same else 'is not'} {_shown(expected)}: {why}",
    )


def _parts(well_formed: bool, right: bool) -> dict[str, float]:
    return {"format_reward": float(well_formed), "answer_reward": float(right)}


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
