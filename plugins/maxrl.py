"""Advantages divided by the group's mean reward, as maximum likelihood reinforcement
learning has them (MaxRL; CS336, edition of 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Advantage, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def maxrl(rewards: Tensor, group_size: int, *, eps: float = 1e-6) -> Tensor:
    """Reward minus the group's mean, over that mean + eps: the rarer a right answer, the
    more it weighs.
    """
    from alignkit import group_advantages

    return group_advantages(rewards, group_size, scale="mean", eps=eps)


@hookimpl
def align_advantages() -> Iterator[Advantage]:
    yield Advantage("maxrl", maxrl, nonnegative=True)
