"""MATH, competition problems, the 5,000 test problems evaluated as in CS336 (Hendrycks
et al. 2021, arXiv:2103.03874).
"""

from collections.abc import Iterator
from typing import Any

from alignkit import DatasetSource, Eval, InputError, hookimpl, read_rows

from ._math import math_eval, math_rows

_LOCAL = {
    "train": ("math_train7500.jsonl", "MATH/train.jsonl"),
    "test": ("math_test5k.jsonl", "MATH/validation.jsonl"),
    "sft": ("math_sft_r1_1767.jsonl", "MATH/sft.jsonl"),
}


def load(*, split: str = "train", path: str | None = None) -> list[dict[str, Any]]:
    """`question`, `truth`, `level`, `subject`; split `sft` (local only) has `prompt`,
    `response`, `truth`.
    """
    if split not in _LOCAL:
        raise InputError(
            f"dataset 'math' has the splits {', '.join(_LOCAL)}, not '{split}'"
        )
    hub = None if split == "sft" else "DigitalLearningGmbH/MATH-lighteval"
    rows = read_rows(path=path, local=_LOCAL[split], hub=hub, split=split)
    if split == "sft":
        return [{"truth": row.get("ground_truth"), **row} for row in rows]
    return math_rows(rows, f"math-{split}")


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("math", load)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval(
        "math", source="CS336 assignment 5; grader of Dr. GRPO (arXiv:2503.20783)"
    )
