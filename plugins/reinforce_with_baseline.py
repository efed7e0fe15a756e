"""Policy gradient with advantages (REINFORCE with a baseline; CS336's
`reinforce_with_baseline`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def reinforce_with_baseline(batch: PolicyBatch) -> Tensor:
    """-A log p per token."""
    from alignkit import compute_naive_policy_gradient_loss

    return compute_naive_policy_gradient_loss(
        batch.advantages.unsqueeze(1), batch.logps
    )


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss(
        "reinforce_with_baseline", reinforce_with_baseline, methods=("grpo", "rloo")
    )
