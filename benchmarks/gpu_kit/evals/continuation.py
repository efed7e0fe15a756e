"""Continue a text by a fixed number of tokens: for the speed of generation alone."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alignkit import Eval, Sample, Score, hookimpl


def samples(
    rows: Iterable[dict[str, Any]], render: Callable[..., Any]
) -> Iterator[Sample]:
    """One sample per row."""
    for number, row in enumerate(rows):
        yield Sample(str(number), render(row), row["truth"])


def score(sample: Sample, response: str) -> Score:
    """1 for any text."""
    return Score(float(bool(response)))


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="continuation",
        samples=samples,
        score=score,
        data={"dataset": "jsonl", "split": "train"},
        prompt="question_only",
        sampling={"temperature": 0.0},
    )
