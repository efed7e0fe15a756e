"""Batches of every kind of loss, small and fixed, for a loss by itself.

Shapes: B rows, T tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from alignkit.train.objective import Objective, Step
from alignkit.types import Loss, PolicyBatch, PreferenceBatch, SFTBatch

CONSTANT = 7.0
Batch = SFTBatch | PolicyBatch | PreferenceBatch


def kind_of(loss: Loss) -> str:
    """`sft`, `preference` or `policy`: what batch the loss takes."""
    return {"sft": "sft", "dpo": "preference"}.get(loss.methods[0], "policy")


def objective_of(loss: Loss, normalize: str | None) -> Objective:
    """The loss under one of its normalisations."""
    constant = CONSTANT if normalize == "constant" else None
    return Objective(loss, normalize=normalize, constant=constant)


def reduced(loss: Loss, batch: Batch, mask: Tensor) -> Iterator[Tensor]:
    """The loss of the batch under each normalisation."""
    step = Step(mask.sum(), torch.tensor(float(len(mask))), 1)
    for normalize in loss.normalize or (None,):
        objective = objective_of(loss, normalize)
        values, _ = objective(batch)
        yield objective.reduce(values, mask, step)


def log_probs(
    lengths: tuple[int, ...], dtype: torch.dtype = torch.float64, low: float = -3.0
) -> tuple[Tensor, Tensor]:
    """Log-probs (B, T) between `low` and 0 of responses of these lengths, and their
    mask.
    """
    shape = (len(lengths), max(*lengths, 1))
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    # TRL's log-probs are 0 on padding
    return (values * low).masked_fill(~mask, 0).to(dtype), mask


def batch_of(
    loss: Loss,
    logps: Tensor,
    mask: Tensor,
    drift: float = 0.3,
    advantages: Tensor | None = None,
) -> tuple[Batch, Tensor]:
    """A batch of the loss's kind around log-probs (B, T), and the tensor that carries
    the gradient.
    """
    leaf = logps.detach().clone().requires_grad_()
    if kind_of(loss) == "sft":
        return SFTBatch(leaf, mask, torch.ones_like(logps)), leaf
    if kind_of(loss) == "preference":
        sums = leaf.masked_fill(~mask, 0).sum(1)
        still = sums.detach() + drift
        each = leaf.masked_fill(~mask, 0)
        pairs = PreferenceBatch(
            sums,
            sums.flip(0),
            still,
            still.flip(0) - drift,
            chosen_token_logps=each,
            chosen_mask=mask,
            rejected_token_logps=each.flip(0),
            rejected_mask=mask.flip(0),
        )
        return pairs, leaf
    if advantages is None:
        advantages = torch.linspace(-1.0, 1.0, len(logps)).to(logps)
    places = torch.arange(logps.numel()).view_as(logps)
    old, reference = (
        (logps.detach() + drift * torch.sin(places + phase)).to(logps.dtype)
        for phase in (0.0, 2.0)
    )
    rewards, entropies = advantages.clone(), torch.ones_like(logps)
    batch = PolicyBatch(leaf, old, mask, advantages, rewards, reference, entropies)
    return batch, leaf
