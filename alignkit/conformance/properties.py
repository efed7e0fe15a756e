"""What any loss must do whatever its definition, shown on small batches.

Every function returns what is wrong, or None.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from alignkit.conformance import preference
from alignkit.conformance.batches import batch_of, kind_of, log_probs, reduced
from alignkit.conformance.check import unless
from alignkit.train.objective import Objective
from alignkit.types import Loss

LENGTHS = (5, 3, 4)
ADVANTAGES = (0.7, -1.1, 0.4)


def dtype(loss: Loss) -> str | None:
    """Losses are of their log-probs' dtype, or float32."""
    for kind in (torch.float32, torch.bfloat16):
        batch, _ = batch_of(loss, *log_probs((4, 2, 1), kind))
        values, _ = Objective(loss)(batch)
        if values.dtype not in (kind, torch.float32):
            return (
                f"{kind} log-probs gave a loss of {values.dtype}; expected {kind} or"
                " torch.float32"
            )
    return None


def finite(loss: Loss) -> str | None:
    """Loss and gradient are finite in batches at the edge."""
    cases: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {
        "one token": (*log_probs((1,)), None),
        "a row without response tokens": (*log_probs((3, 0, 1)), None),
        "no response token at all": (*log_probs((0, 0)), None),
        "very negative log-probs": (*log_probs((4, 2), low=-1e5), None),
        "bfloat16": (*log_probs((4, 2, 1), torch.bfloat16), None),
        "advantages of 0": (*log_probs((4, 2)), torch.zeros(2, dtype=torch.float64)),
    }
    for name, (logps, mask, advantages) in cases.items():
        batch, leaf = batch_of(loss, logps, mask, advantages=advantages)
        for value in reduced(loss, batch, mask):
            gradient = torch.autograd.grad(value, leaf, retain_graph=True)[0]
            if not (value.isfinite() and gradient[mask].isfinite().all()):
                return (
                    f"{name}: loss {value.item():g}, gradient finite:"
                    f" {bool(gradient.isfinite().all())}"
                )
    return None


def padding(loss: Loss) -> str | None:
    """Values on padding reach neither the loss nor the gradient."""
    if kind_of(loss) == "preference":
        return None  # sums over responses come from the trainer
    logps, mask = log_probs((6, 3, 1))
    clean, clean_leaf = batch_of(loss, logps, mask)
    dirty, dirty_leaf = batch_of(loss, logps.masked_fill(~mask, -5.0), mask)
    for one, other in zip(
        reduced(loss, clean, mask), reduced(loss, dirty, mask), strict=True
    ):
        gradients = [
            torch.autograd.grad(value, leaf, retain_graph=True)[0]
            for value, leaf in ((one, clean_leaf), (other, dirty_leaf))
        ]
        if any(gradient[~mask].any() for gradient in gradients):
            return "padding tokens have a gradient"
        if not torch.allclose(one, other) or not torch.allclose(*gradients):
            return (
                f"the loss reads padding: {one.item():g} becomes {other.item():g} when"
                " it changes"
            )
    return None


def scaling(loss: Loss) -> str | None:
    """Where old = reference = policy, a policy gradient is proportional to the
    advantages (or rewards).
    """
    none, once, twice = (_policy_gradient(loss, factor) for factor in (0.0, 1.0, 2.0))
    if none.abs().max() > 1e-9:
        return (
            f"advantages of 0 leave a gradient of {none.abs().max():.2g}: something in"
            " them is not detached"
        )
    return unless(
        torch.allclose(twice, 2 * once, rtol=1e-6, atol=1e-12),
        "twice the advantages do not give twice the gradient: something in them is not"
        " detached",
    )


def direction(loss: Loss) -> str | None:
    """A step against the gradient makes likelier what should be: demonstrations, good
    completions, chosen ones.
    """
    kind = kind_of(loss)
    if kind == "preference":
        return preference.direction(loss)
    if kind == "policy":
        gradient = _policy_gradient(loss)
        gain = -(gradient * gradient.new_tensor(ADVANTAGES)[:, None]).sum()
    else:
        gain = -_policy_gradient(loss).sum()
    if gain > 0:
        return None
    if not gain.isfinite():
        return "the gradient is not finite"
    if gain == 0:
        return "the gradient is zero: nothing is learnt"
    return "the sign is wrong: it unlearns what is good"


def purity(loss: Loss) -> str | None:
    """A rollout batch is used again in later steps, so a loss must not write into it."""
    batch, _ = batch_of(loss, *log_probs(LENGTHS))
    names = [spec.name for spec in dataclasses.fields(batch)]
    held = {name: getattr(batch, name) for name in names}
    held = {name: tensor for name, tensor in held.items() if tensor is not None}
    before = {name: tensor.detach().clone() for name, tensor in held.items()}
    loss.function(batch)
    changed = [name for name in held if not torch.equal(before[name], held[name])]
    return unless(
        not changed,
        f"writes into batch.{', '.join(changed)}; make a new tensor instead",
    )


def _policy_gradient(loss: Loss, factor: float = 1.0) -> Tensor:
    """The gradient (B, T) of an on-policy batch with the advantages times a factor."""
    logps, mask = log_probs(LENGTHS)
    advantages = factor * logps.new_tensor(ADVANTAGES)
    batch, leaf = batch_of(loss, logps, mask, drift=0.0, advantages=advantages)
    return torch.autograd.grad(next(reduced(loss, batch, mask)), leaf)[0]
