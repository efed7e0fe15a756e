"""Advantages relative to the group of completions of one prompt (GRPO,
arXiv:2402.03300; Dr. GRPO, 2503.20783).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from alignkit import Advantage, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def group(
    rewards: Tensor,
    group_size: int,
    *,
    baseline: Literal["mean", "none"] = "mean",
    scale: Literal["std", "none"] = "std",
    eps: float = 1e-6,
) -> Tensor:
    """Reward minus the group's mean unless `baseline` is none, over its unbiased
    standard deviation + eps unless `scale` is none.
    """
    from alignkit import group_advantages

    return group_advantages(
        rewards, group_size, baseline=baseline, scale=scale, eps=eps
    )


@hookimpl
def align_advantages() -> Iterator[Advantage]:
    yield Advantage("group", group)
