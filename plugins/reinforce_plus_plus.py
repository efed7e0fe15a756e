"""Advantages normalised over the whole batch (REINFORCE++, Hu et al. 2025,
arXiv:2501.03262).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from alignkit import Advantage, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def reinforce_plus_plus(
    rewards: Tensor,
    group_size: int,
    *,
    baseline: Literal["batch", "group"] = "batch",
    eps: float = 1e-6,
) -> Tensor:
    """Reward minus the batch's mean, over the batch's unbiased standard deviation + eps;
    with `baseline: group` the group's mean is taken away first (REINFORCE++-baseline).
    """
    from alignkit import group_advantages, group_normalize

    if baseline == "group":
        rewards = group_advantages(rewards, group_size, scale="none")
    return group_normalize(rewards, len(rewards), eps)


@hookimpl
def align_advantages() -> Iterator[Advantage]:
    yield Advantage("reinforce_plus_plus", reinforce_plus_plus, across_groups=True)
