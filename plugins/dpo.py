"""Direct preference optimisation, sigmoid loss (Rafailov et al., arXiv:2305.18290,
equation 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PreferenceBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def dpo(
    batch: PreferenceBatch, *, beta: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """-log sigmoid(beta * margin) per pair; the margin is of log-ratios to the
    reference.
    """
    from alignkit import dpo_loss

    loss = dpo_loss(
        batch.chosen_logps,
        batch.rejected_logps,
        batch.ref_chosen_logps,
        batch.ref_rejected_logps,
        beta,
    )
    chosen = beta * (batch.chosen_logps - batch.ref_chosen_logps)
    rejected = beta * (batch.rejected_logps - batch.ref_rejected_logps)
    return loss, {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": chosen > rejected,
    }


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss("dpo", dpo, methods=("dpo",), normalize=())
