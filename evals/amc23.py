"""AMC 2023: 40 problems of AMC 12 with integer answers."""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, Eval, hookimpl, read_rows

from ._math import math_eval, math_rows

HUB = "math-ai/amc23"


def load(
    *, split: Literal["test"] = "test", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `truth` and what else the rows have; there is one split."""
    return math_rows(
        read_rows(path=path, local=["amc23.jsonl"], hub=HUB, split="test"), "amc23"
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("amc23", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval("amc23", source=HUB)
