"""Group sequence policy optimisation: the ratio of whole sequences by the geometric mean
of its tokens' (Zheng et al. 2025, arXiv:2507.18071).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, PolicyBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def gspo(
    batch: PolicyBatch, *, cliprange: float = 3e-4, cliprange_high: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """-min(s A, clip(s, 1 - cliprange, 1 + cliprange_high) A) in each token, with s the
    geometric mean of the response's p / p_old; above as below where `cliprange_high` is
    not stated.
    """
    from alignkit import compute_gspo_loss

    loss, parts = compute_gspo_loss(
        batch.advantages.unsqueeze(1),
        batch.logps,
        batch.old_logps,
        batch.mask,
        cliprange,
        cliprange_high,
    )
    return loss, {"clip_fraction": parts["clipped"]}


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss("gspo", gspo, methods=("grpo", "rloo"))
