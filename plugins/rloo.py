"""REINFORCE leave-one-out with a clipped ratio of whole sequences (arXiv:2402.14740),
as TRL's RLOO has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def rloo(
    batch: PolicyBatch, *, cliprange: float = 0.2
) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(r A, clip(r) A) per sequence, with r the ratio of the sequence's
    probabilities.
    """
    from alignkit import compute_grpo_clip_loss, masked_normalize

    # (B,), sums over the response
    logps = masked_normalize(batch.logps, batch.mask, dim=-1)
    old_logps = masked_normalize(batch.old_logps, batch.mask, dim=-1)
    loss, parts = compute_grpo_clip_loss(batch.advantages, logps, old_logps, cliprange)
    return loss, {"clip_fraction": parts["clipped"]}


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss("rloo", rloo, methods=("rloo", "grpo"), normalize=())
