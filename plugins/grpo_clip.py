"""The clipped policy gradient of PPO and GRPO (DeepSeekMath, arXiv:2402.03300, equation
3); with another upper range, that of DAPO (arXiv:2503.14476).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def grpo_clip(
    batch: PolicyBatch, *, cliprange: float = 0.2, cliprange_high: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(r A, clip(r, 1 - cliprange, 1 + cliprange_high) A) per token, with
    r = p / p_old; above as below where `cliprange_high` is not stated.
    """
    from alignkit import compute_grpo_clip_loss

    loss, parts = compute_grpo_clip_loss(
        batch.advantages.unsqueeze(1),
        batch.logps,
        batch.old_logps,
        cliprange,
        cliprange_high,
    )
    return loss, {"clip_fraction": parts["clipped"]}


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss("grpo_clip", grpo_clip, methods=("grpo", "rloo"))
