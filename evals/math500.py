"""MATH-500: 500 problems of the MATH test set chosen by Lightman et al. (2023,
arXiv:2305.20050).
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, Eval, hookimpl, read_rows

from ._math import math_eval, math_rows

HUB = "HuggingFaceH4/MATH-500"


def load(
    *, split: Literal["test"] = "test", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `truth` and what else the rows have; there is one split."""
    return math_rows(
        read_rows(path=path, local=["math500.jsonl"], hub=HUB, split="test"), "math500"
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("math500", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval("math500", source=HUB)
