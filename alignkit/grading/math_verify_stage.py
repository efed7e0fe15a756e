"""math-verify as a stage: read both as LaTeX, compare the formulas.

Its own time-outs use signals, which work in a main thread only; they are off here, and
the worker is killed instead. Texts that would only run into that are refused before
they are read.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from functools import lru_cache
from typing import Any

from alignkit.grading.answer.final import closings
from alignkit.grading.values import MAX_BITS, MAX_FACTORIAL

_NUMBER = re.compile(r"\s*-?[0-9]{1,15}(\.[0-9]{1,15})?\s*$")
# 9^{9^9}, (9**9)**9
_POWERS = re.compile(r"[0-9]+(?:[\s})]*(?:\^|\*\*)[\s{(-]*[0-9]+)+")
_LARGE_EXPONENT = re.compile(
    r"[})][\s)}]*(?:\^|\*\*)[\s{(-]*([0-9]{3,})|(?:\^|\*\*)[\s{(-]*[0-9]{5,}"
)
_POWER_OF_POWER = re.compile(r"[\s})]*[})][\s})]*(?:\^|\*\*)")
_FACTORIAL = re.compile(r"(?:([0-9]+)\s*(?:\^|\*\*)[\s{(]*)?([0-9]+)[\s})]*!")
_NESTED_FACTORIAL = re.compile(r"[0-9]{2,}\s*!\s*[})]+\s*!")
_BINOMIAL = re.compile(r"binom\s*\{[^{}]*(?:[0-9]{5,}|\^)")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
# what spells nothing between two boxes: spaces, `$`, the name of a variable
_SILENT = re.compile(r"\\[a-zA-Z]+|[\s$\\(){}\[\].]|[a-zA-Z]\s*=")
_LISTING = {",", ";", "&", "and", "or", ",and", ",or"}
MAX_LATEX_CHARS = 4_000
MAX_LATEX_POWER = 150  # of a group: a sum, a matrix


def math_verify_equal(truth: str, answer: str) -> tuple[bool, str]:
    """Whether math-verify finds the two equal (each as one LaTeX formula unless it
    holds a `$`), and why.
    """
    if (
        _NUMBER.match(truth)
        and _NUMBER.match(answer)
        and abs(float(truth) - float(answer)) > 1e-3
    ):
        return False, "the numbers differ"
    if len(answer) > MAX_LATEX_CHARS:
        return False, f"over {MAX_LATEX_CHARS} characters: not read by math-verify"
    if too_large(answer):
        return (
            False,
            "out of bounds: a power, factorial or binomial too large to evaluate",
        )
    if repeats_itself(answer) or repeats_itself(truth):
        return False, "the text repeats itself"
    return (
        math_verify_verify(read_truth(truth), _read(_in_dollars(answer))),
        "math-verify",
    )


def _in_dollars(text: str) -> str:
    return text if "$" in text else f"${text}$"


@lru_cache(maxsize=2048)  # a group of responses shares its truth
def read_truth(text: str) -> list[Any]:
    """math-verify's reading of a truth."""
    return _read(_in_dollars(text))


def read_response(text: str) -> list[Any]:
    """math-verify's reading of a whole response, by its defaults."""
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def last_boxes(text: str) -> str:
    r"""The text with the boxes of its answer alone: of `\boxed{5}, no: \boxed{7}` the
    last one, which math-verify joins to a set; of boxes that `and`, `or` or a comma
    lists, all.
    """
    closing = closings(text)
    boxes = [box for box in _BOX.finditer(text) if box.end() in closing]
    kept = len(boxes) - 1
    while kept > 0:
        between = text[closing[boxes[kept - 1].end()] + 1 : boxes[kept].start()]
        if _SILENT.sub("", between) not in _LISTING:
            break
        kept -= 1
    for box in reversed(boxes[:kept]):
        text = text[: box.start()] + text[box.end() :]
    return text


def _read(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    return parse(
        text,
        extraction_config=(
            LatexExtractionConfig(boxed_match_priority=0),
            ExprExtractionConfig(),
        ),
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )


def warm_up() -> None:
    """Import and use what the stages need, so that the first sample of a worker does
    not wait for it.
    """
    # it warns that its time-outs are off: that is meant so
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    math_verify_verify(_read("$x+1$"), _read("$1+x$"))


def math_verify_verify(truth: list[object], answer: list[object]) -> bool:
    """Whether math-verify finds one of the readings of each equal."""
    from math_verify import verify

    return verify(truth, answer, timeout_seconds=None)


def too_large(text: str) -> bool:
    """Whether a text holds a power, factorial or binomial that would not be evaluated
    in time.
    """
    if any(_bits(powers[0]) > MAX_BITS for powers in _POWERS.finditer(text)):
        return True
    for found in _LARGE_EXPONENT.finditer(text):
        if found[1] is None or float(found[1]) > MAX_LATEX_POWER:
            return True
    for base, number in _FACTORIAL.findall(text):
        if (
            math.log10(float(base or 1) or 1) * float(number) > 6
            or not float(number) <= MAX_FACTORIAL
        ):
            return True
    return (
        _NESTED_FACTORIAL.search(text) is not None or _BINOMIAL.search(text) is not None
    )


def _bits(powers: str) -> float:
    """The size of nested powers of numbers: `9^{9^9}` from the right, `(9^9)^9` from
    the left.
    """
    bits, value = 0.0, 1.0
    for position, group in enumerate(_POWER_OF_POWER.split(powers)):
        exponent = 1.0
        for number in reversed(re.findall(r"[0-9]+", group)):
            base = min(float(number), 1e300)
            bits = exponent * math.log2(base) if base > 1 else 0.0
            exponent = 2.0 ** min(bits, 1000.0)
        value = bits if position == 0 else min(value * exponent, 1e300)
    return value


def repeats_itself(text: str) -> bool:
    """Whether a text of over 128 characters is mostly repetition: the mean shared
    prefix of neighbouring suffixes exceeds a tenth of its length (the published grader
    gives such answers no math-verify).
    """
    size = len(text)
    if size <= 128:
        return False
    suffixes = sorted(text[start:] for start in range(size))
    shared = sum(_shared_prefix(a, b) for a, b in itertools.pairwise(suffixes))
    return shared * 2 / (size * (size + 1)) > 0.2


def _shared_prefix(a: str, b: str) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a.startswith(b[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low
