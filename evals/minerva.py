"""MinervaMath: 272 undergraduate science problems (Lewkowycz et al. 2022,
arXiv:2206.14858).
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, Eval, hookimpl, read_rows

from ._math import math_eval, math_rows

HUB = "math-ai/minervamath"


def load(
    *, split: Literal["test"] = "test", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `truth` and what else the rows have; there is one split."""
    return math_rows(
        read_rows(path=path, local=["minerva_math.jsonl"], hub=HUB, split="test"),
        "minerva",
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("minerva", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval("minerva", source=HUB)
