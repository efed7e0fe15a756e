"""The importance-weighted policy gradient without a clip (CS336's GRPO-No-Clip
ablation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def grpo_no_clip(batch: PolicyBatch) -> Tensor:
    """-r A per token, with r = p / p_old."""
    from alignkit import compute_grpo_no_clip_loss

    return compute_grpo_no_clip_loss(
        batch.advantages.unsqueeze(1), batch.logps, batch.old_logps
    )[0]


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss("grpo_no_clip", grpo_no_clip, methods=("grpo", "rloo"))
