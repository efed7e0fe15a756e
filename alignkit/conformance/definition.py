"""The gradient of one optimizer step by definition, to hold the trainers' against.

Shapes: T response tokens of one sequence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.conformance.batches import CONSTANT
from alignkit.conformance.check import Note, unless
from alignkit.conformance.rows import Row, drift, model, pairs
from alignkit.functional import compute_entropy
from alignkit.train.objective import Objective
from alignkit.types import PolicyBatch, PreferenceBatch, SFTBatch

if TYPE_CHECKING:
    from alignkit.conformance.laboratory import Gradients, Laboratory

# of the largest gradient; the trainers' fused head computes in float32
TOLERANCE = 1e-5


def definition(objective: Objective, method: str, laboratory: Laboratory) -> Gradients:
    """The gradient of one step: the plugin on each sequence alone, unpadded, then plain
    sums.
    """
    net = model(laboratory.tokenizer)
    if method == "dpo":
        reference = model(laboratory.tokenizer, seed=1)
        loss = _preference_loss(objective, net, reference, laboratory.rows)
    else:
        loss = _sequence_loss(objective, method, net, laboratory.rows)
    loss.backward()
    return {
        name: weight.grad
        for name, weight in net.named_parameters()
        if weight.grad is not None
    }


def gap(expected: Gradients, gradients: Gradients, what: str) -> str | None:
    """How far gradients lie off the expected ones, where that is more than rounding."""
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    if not scale:
        return Note("not checked: the gradient of these rows is zero")
    widest = max(
        float((expected[name] - gradients[name]).abs().max()) for name in expected
    )
    same = math.isfinite(widest) and widest <= TOLERANCE * scale
    return unless(
        same,
        f"gradients differ by {widest / (scale or 1):.2g} of the largest one from"
        f" {what}",
    )


def row_log_probs(net: torch.nn.Module, row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs (1, T) of the response tokens, their entropies and their ids (1, T)."""
    ids = torch.tensor([row.prompt + row.response])
    logits = net(ids).logits[:, len(row.prompt) - 1 : -1]
    response = ids[:, len(row.prompt) :]
    logps = logits.log_softmax(-1).gather(-1, response.unsqueeze(-1)).squeeze(-1)
    return logps, compute_entropy(logits.detach()), response


def row_batch(net: torch.nn.Module, row: Row, method: str) -> SFTBatch | PolicyBatch:
    """The batch of one row alone, unpadded."""
    logps, entropies, ids = row_log_probs(net, row)
    mask = torch.ones_like(ids, dtype=torch.bool)
    if method == "sft":
        return SFTBatch(logps, mask, entropies)
    still = logps.detach()
    advantage, reward = (
        torch.tensor([value], dtype=torch.float64)
        for value in (row.advantage, row.reward)
    )
    old, reference = still + drift(ids, 0.0), still + drift(ids, 2.0)
    return PolicyBatch(logps, old, mask, advantage, reward, reference, entropies)


def _preference_loss(
    objective: Objective,
    net: torch.nn.Module,
    reference: torch.nn.Module,
    rows: list[Row],
) -> Tensor:
    losses = []
    for pair in pairs(rows):
        chosen, rejected = (row_log_probs(net, row)[0] for row in pair)
        still = [row_log_probs(reference, row)[0].sum(1).detach() for row in pair]
        batch = PreferenceBatch(
            chosen.sum(1),
            rejected.sum(1),
            still[0],
            still[1],
            chosen_token_logps=chosen,
            chosen_mask=torch.ones_like(chosen, dtype=torch.bool),
            rejected_token_logps=rejected,
            rejected_mask=torch.ones_like(rejected, dtype=torch.bool),
        )
        losses.append(objective(batch)[0])
    return torch.stack(losses).mean()


def _sequence_loss(
    objective: Objective, method: str, net: torch.nn.Module, rows: list[Row]
) -> Tensor:
    trained = [row for row in rows if method == "sft" or row.trained]
    lengths = [len(row.response) for row in trained]
    losses = [objective(row_batch(net, row, method))[0] for row in trained]
    if objective.normalize == "token":
        return sum(values.sum() for values in losses) / sum(lengths)
    if objective.normalize == "sequence":
        return sum(values.mean() for values in losses) / len(rows)
    # one value per sequence is divided by nothing
    divisors = {None: 1, "constant": CONSTANT, "microbatch": max(lengths)}
    divisor = divisors[objective.normalize]
    return sum(values.sum() / divisor for values in losses) / len(rows)
