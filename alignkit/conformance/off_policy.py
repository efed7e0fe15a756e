"""One response off-policy, for a policy loss by itself.

Shapes: T tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from alignkit.types import Loss, PolicyBatch

ZERO = 1e-12
# of tokens that the model is sure of, and of those that it is not
LOGPS = (-0.001, -0.05, -0.5, -1.5, -4.0, -9.0)


def batch(
    logps: Tensor,
    *,
    advantage: float,
    ratio: float = 1.0,
    above: float | None = None,
) -> tuple[PolicyBatch, Tensor]:
    """One row of tokens (1, T) and its leaf: `ratio` to the policy that sampled, nats
    `above` the reference (None: there is none).
    """
    leaf = logps.detach().clone().requires_grad_()
    still = logps.detach()
    reference = None if above is None else still - above
    column = still.new_tensor([advantage])
    return (
        PolicyBatch(
            logps=leaf,
            old_logps=still - math.log(ratio),
            mask=torch.ones_like(still, dtype=torch.bool),
            advantages=column,
            rewards=column.clone(),
            ref_logps=reference,
            entropies=torch.ones_like(still),
        ),
        leaf,
    )


def values_of(loss: Loss, of: PolicyBatch, **options: Any) -> Tensor:
    """The plugin's values, per token or per sequence."""
    result = loss.function(of, **options)
    return result[0] if isinstance(result, tuple) else result


def gradient(loss: Loss, logps: Tensor, **given: Any) -> Tensor:
    """(1, T) of the summed values; `options` among `given` are the plugin's."""
    options = given.pop("options", {})
    of, leaf = batch(logps, **given)
    total = values_of(loss, of, **options).sum()
    if not total.requires_grad:
        return torch.zeros_like(logps)
    (found,) = torch.autograd.grad(total, leaf, allow_unused=True)
    return torch.zeros_like(logps) if found is None else found


def tokens(count: int = 1) -> Tensor:
    """(1, T) log-probs of a response."""
    return torch.full((1, count), -1.0, dtype=torch.float64)
