"""Rows whose response is right: `correct: true` of a dataset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from alignkit.data.rows import RowError
from alignkit.errors import listing
from alignkit.grading.truths import TRUTH_COLUMNS, missing_truth, truth_column
from alignkit.types import Score

log = logging.getLogger(__name__)

DEADLINE = 5.0  # seconds for one row
_BATCH = 256  # rows that are graded at once


def right_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows whose response answers with their truth, in their order.

    Raises:
        RowError: a row without a text as its response, or without a truth.
    """
    from alignkit.grading import Grader

    counts: Counter[str] = Counter()
    source = iter(rows)
    with Grader() as grader:
        while batch := list(islice(source, _BATCH)):
            first = counts.total() + 1
            pairs = [_pair(row, number) for number, row in enumerate(batch, first)]
            graded = grader.call(verdict, pairs, DEADLINE).result()
            counts.update(str(one.score.status) for one in graded)
            for row, one in zip(batch, graded, strict=True):
                if one.score.status == "ok":
                    yield row
    log.info("correct: %s", dict(counts))
    if undecided := counts["timeout"] + counts["error"]:
        log.warning("correct: %d rows left out that could not be graded", undecided)


def verdict(response: str, truth: object) -> Score:
    """A response with `<answer>` tags has to be right in the form of r1_zero, by the
    published grader; another one by what its final answer means.
    """
    from alignkit.grading.answer.verdict import grade_math
    from alignkit.grading.grade import grade

    return (
        grade(response, truth)
        if "<answer>" in response
        else grade_math(response, truth)
    )


def _pair(row: Mapping[str, Any], number: int) -> tuple[str, object]:
    column = truth_column(row)
    truth = row[column] if column else None
    response = row.get("response")
    if not isinstance(response, str):
        why = "has no text in `response`"
    elif missing := missing_truth(truth):
        why = f"has no truth in {', '.join(TRUTH_COLUMNS)} ({column or 'it'} {missing})"
    else:
        return response, truth
    raise RowError(
        number,
        f"correct: true keeps the rows with a right response; row {number} {why}; it has"
        f" {listing(sorted(map(str, row)))}. Another column can serve: `columns:` of the"
        " dataset 'jsonl'",
    )
