r"""The r1_zero reward of "Understanding R1-Zero-Like Training" (Liu et al. 2025) and
CS336.
"""

from collections.abc import Iterator
from typing import Any

from alignkit import Reward, Score, grade, hookimpl


def drgrpo(response: str, truth: Any, *, fast: bool = True) -> Score:
    r"""1 when the format is kept exactly (`</think> <answer>…</answer>`) and the answer
    is right, else 0.

    `fast=False` also asks math-verify.

    >>> drgrpo("half </think> <answer>0.5</answer>", r"\frac{1}{2}").reward
    1.0
    """
    return grade(response, truth, form="r1_zero", fast=fast)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward(
        "drgrpo",
        drgrpo,
        retired={"strict": "the reward `math` refuses answers that hedge"},
    )
