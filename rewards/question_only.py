r"""The question_only reward of "Understanding R1-Zero-Like Training" and CS336: the
answer stands in `\boxed{}`.
"""

from collections.abc import Iterator
from typing import Any

from alignkit import Reward, Score, grade, hookimpl


def question_only(response: str, truth: Any, *, fast: bool = True) -> Score:
    r"""1 when the last `\boxed{…}` holds the right answer, else 0; without a box the
    format is 0.

    `fast=False` also asks math-verify.

    >>> question_only(r"so it is \boxed{0.5}", r"\frac{1}{2}").reward
    1.0
    """
    return grade(response, truth, form="boxed", fast=fast)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward(
        "question_only",
        question_only,
        retired={"strict": "the reward `math` refuses answers that hedge"},
    )
