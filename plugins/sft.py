"""Supervised fine-tuning: the negative log-likelihood of the response tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit import Loss, SFTBatch, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


def sft(batch: SFTBatch) -> Tensor:
    """-log p per token."""
    return -batch.logps


@hookimpl
def align_losses() -> Iterator[Loss]:
    yield Loss(
        "sft",
        sft,
        methods=("sft",),
        normalize=("token", "sequence", "constant", "microbatch"),
    )
