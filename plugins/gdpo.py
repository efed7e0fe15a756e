"""Several rewards, each normalised in its group before they are added up (GDPO,
arXiv:2601.05242), so that none drowns another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Advantage, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def gdpo(
    rewards: Tensor, group_size: int, weights: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """Each reward minus its group's mean, over its unbiased standard deviation + eps;
    their weighted sum, normalised in the same way over the batch.
    """
    from alignkit import group_normalize

    total = rewards.new_zeros(len(rewards))
    for column, weight in zip(rewards.T, weights, strict=True):
        total += weight * group_normalize(column, group_size, eps).nan_to_num(0)
    total = total.masked_fill(rewards.isnan().all(dim=1), float("nan"))
    return group_normalize(total, len(total), eps)


@hookimpl
def align_advantages() -> Iterator[Advantage]:
    yield Advantage("gdpo", gdpo, by_reward=True, across_groups=True)
