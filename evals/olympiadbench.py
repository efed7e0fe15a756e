"""OlympiadBench: the 675 English text-only competition problems (He et al. 2024,
arXiv:2402.14008).
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, Eval, hookimpl, read_rows

from ._math import math_eval, math_rows

HUB = "math-ai/olympiadbench"


def load(
    *, split: Literal["test"] = "test", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `truth` and what else the rows have; there is one split."""
    return math_rows(
        read_rows(path=path, local=["olympiadbench.jsonl"], hub=HUB, split="test"),
        "olympiadbench",
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("olympiadbench", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval("olympiadbench", source=HUB)
