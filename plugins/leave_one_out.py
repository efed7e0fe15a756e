"""Advantages against the mean of the other completions of the prompt (RLOO,
arXiv:2402.14740).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Advantage, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Reward minus the mean reward of the group's other scored completions; 0 where
    there is no other.
    """
    groups = rewards.view(-1, group_size)
    others = (~groups.isnan()).sum(dim=1, keepdim=True) - 1
    baseline = (groups.nansum(dim=1, keepdim=True) - groups) / others
    return (groups - baseline).masked_fill(others < 1, 0).view(-1)


@hookimpl
def align_advantages() -> Iterator[Advantage]:
    yield Advantage("leave_one_out", leave_one_out)
