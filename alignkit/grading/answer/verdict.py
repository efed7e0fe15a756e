"""One verdict on a response by what its final answer means."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from alignkit.grading.answer.compare import Terms, equal
from alignkit.grading.answer.final import Final, final_answer
from alignkit.grading.answer.reading import read
from alignkit.grading.answer.shapes import Answer, Hedged
from alignkit.grading.answer.spelling import plain, spelled
from alignkit.grading.answer.tree import Unreadable
from alignkit.grading.answer.units import Unit
from alignkit.grading.answer.worth import Worthless, exact
from alignkit.grading.math_verify_stage import math_verify_equal
from alignkit.grading.truths import truth_texts
from alignkit.types import Score

MAX_CHARS = 2_000  # of an answer
_SHOWN = 120
Units = Literal["agree", "exact", "ignore"]


def grade_math(
    response: str, truth: object, *, units: Units = "agree", tolerance: float = 0.0
) -> Score:
    r"""1 for a response whose final answer means what the truth does, else 0.

    The final answer stands behind the thinking (`</think>`): in the last box or answer
    tag, or in a sentence that states it (`The answer is …`, `#### …`), which also counts
    where it contradicts a box before it. Boxes side by side are one list. An answer that
    names alternatives is wrong.

    `units`: `agree`, a stated unit must not contradict the truth's (`500 cm` is `5 m`);
    `exact`, it must be of the truth's kind; `ignore`. `tolerance`: relative, of numbers.
    The truth is a text, a number, or a list of these (any matches).

    The status is `unparsed` where no answer is stated; the stage says what decided.
    """
    final = final_answer(response)
    if final is None:
        return _score(
            False, "unparsed", "format", "no box, answer tag or stated answer"
        )
    terms = Terms(units, tolerance)
    why, stage = "the truth holds no answer", "truth"
    for text in truth_texts(truth):
        right, stage, why = verdict(final, text, terms)
        if right:
            return _score(True, "ok", stage, f"{final.place}: {why}")
    score = _score(False, "wrong", stage, f"{final.place}: {why}")
    return replace(score, answer=_normal(_text(final)))


def _score(right: bool, status: str, stage: str, why: str) -> Score:
    return Score(float(right), status, {"answer_reward": float(right)}, stage, why)  # type: ignore[arg-type]


def _text(final: Final) -> str:
    return final.texts[0] if len(final.texts) == 1 else ", ".join(final.texts)


def _normal(text: str) -> str:
    """The same text for numbers of the same value, however these are written."""
    if len(text) > MAX_CHARS:
        return text[:MAX_CHARS]
    try:
        answer = _read(text)
        bare = answer.kind == "value" and answer.unit == Unit() and answer.tree
        value = exact(answer.tree) if bare and answer.tree else None
    except (Unreadable, Hedged, Worthless):
        value = None
    if value is None:
        return plain(text)
    # hexadecimal: Python writes decimals up to some thousand digits only
    return f"{value.numerator:x}/{value.denominator:x}"[:MAX_CHARS]


def verdict(final: Final, truth: str, terms: Terms) -> tuple[bool, str, str]:
    """Whether the answer means the truth, the stage that decided, and why."""
    text = _text(final)
    shown = f"{text!r:.{_SHOWN}} for {truth!r:.{_SHOWN}}"
    if max(len(text), len(truth)) > MAX_CHARS:
        return text == truth, "length", f"over {MAX_CHARS} characters, compared as text"
    if plain(text) == plain(truth):
        return True, "exact", f"{shown}: the same text"
    if doubt := _doubt(text):
        return False, "hedge", f"{shown}: {doubt}"
    try:
        answer = _read(text)
    except Hedged as error:
        return False, "hedge", f"{shown}: {error}"
    except Unreadable as error:
        answer, why = None, str(error)
    expected = _truth(truth)
    if answer is not None and expected is not None:
        try:
            right, why = equal(expected, answer, terms)
        except Worthless as error:
            return False, "bounds", f"{shown}: {error}"
        return right, answer.kind, f"{shown}: {why}"
    elif answer is not None:
        why = "the truth is no form that is read"
    right, reason = _by_math_verify(truth, text, expected, answer)
    return right, "math_verify", f"{shown}: {why}; {reason}"


@lru_cache(maxsize=16)  # an answer is read for each truth, and for its vote
def _read(text: str) -> Answer:
    return read(text)


def _doubt(text: str) -> str:
    """What makes two answers of it: a question, or an approximation that is none."""
    if re.search(r"\?\s*[\w\\]", text):
        return "a question"
    sides = re.split(r"\\approx|≈", text)
    if len(sides) == 2:
        exact, rounded = map(_truth, sides)
        named = exact is None or exact.tree is None or exact.tree.symbols()
        near = Terms(tolerance=0.015)  # 1/3 is about 0.33
        try:
            if exact and rounded and not named and not equal(exact, rounded, near)[0]:
                return "two numbers that are not near each other"
        except Worthless:
            return ""
    return ""


@lru_cache(maxsize=2048)  # a group of responses shares its truth
def _truth(text: str) -> Answer | None:
    try:
        return read(text)
    except (Unreadable, Hedged):
        return None


def _by_math_verify(
    truth: str, text: str, expected: Answer | None, answer: Answer | None
) -> tuple[bool, str]:
    """The last stage, for what this grammar does not read."""
    kinds = {side.kind for side in (expected, answer) if side is not None}
    if kinds & {"words", "choice", "empty", "time"}:
        return False, "one is no formula"
    return math_verify_equal(spelled(truth), spelled(text))
