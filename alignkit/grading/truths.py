"""Truths: where a row has its own, when it has none, and the one rule by which every
grader reads them as texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from alignkit.grading.extract import extract_answer

TRUTH_COLUMNS = ("truth", "ground_truth", "answer")


def truth_column(row: Mapping[str, object]) -> str | None:
    """The column that holds a row's truth: the first of `TRUTH_COLUMNS` that is not
    null, or else that is there at all.
    """
    there = [name for name in TRUTH_COLUMNS if name in row]
    filled = (name for name in there if row[name] is not None)
    return next(filled, next(iter(there), None))


def truth_texts(truth: object) -> Iterable[str]:
    r"""The truth as texts: of a list each; of a text that holds `\boxed`, what is in
    the last box; of a worked solution that ends in `#### 18`, what stands there.
    """
    for one in truth if isinstance(truth, list | tuple) else (truth,):
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise TypeError(
                "a truth is a text, a number, or a list of these; got"
                f" {type(one).__name__}: {one!r:.80}"
            )
        text: str | None = str(one)
        if isinstance(one, str) and "\\boxed" in one:
            text = extract_answer(one, "boxed")
        elif isinstance(one, str) and "####" in one:
            text = one.rpartition("####")[2].strip()
        if text is not None:
            yield text


def missing_truth(value: object) -> str:
    """Why a value is no truth (`is null`, `is empty`, …); empty where it is one."""
    if value is None:
        return "is null"
    if isinstance(value, str) and not value.strip():
        return "is an empty text"
    if isinstance(value, float) and math.isnan(value):
        return "is not a number (NaN)"
    if isinstance(value, list | tuple):
        if not value:
            return "is an empty list"
        return next(
            (f"holds one that {why}" for why in map(missing_truth, value) if why), ""
        )
    return ""
