"""AIME 2025: the 30 problems of both exams."""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, Eval, hookimpl, read_rows

from ._math import math_eval, math_rows

HUB = "math-ai/aime25"


def load(
    *, split: Literal["test"] = "test", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `truth` and what else the rows have; there is one split."""
    return math_rows(
        read_rows(path=path, local=["aime25.jsonl"], hub=HUB, split="test"), "aime25"
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("aime25", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval("aime25", source=HUB)
