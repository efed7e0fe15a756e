"""Clipped importance weights, no clipped gradients (CISPO: MiniMax-M1,
arXiv:2506.13585, equation 4; the bound of ScaleRL, arXiv:2510.13786).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def cispo(
    batch: PolicyBatch, *, cliprange_high: float = 4.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(r, 1 + cliprange_high) A log p per token, with r = p / p_old a weight without
    gradient.
    """
    ratio = (batch.logps.detach() - batch.old_logps).exp()
    most = 1 + cliprange_high
    loss = -ratio.clamp(max=most) * batch.advantages.unsqueeze(1) * batch.logps
    return loss, {"clip_fraction": ratio > most}


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss(
        "cispo",
        cispo,
        methods=("grpo", "rloo"),
        normalize=("token", "sequence", "constant", "microbatch"),
    )
