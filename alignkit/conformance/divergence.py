"""What a policy loss does with the reference where there is no advantage."""

from __future__ import annotations

import torch

from alignkit.conformance.check import unless
from alignkit.conformance.off_policy import ZERO, batch, gradient, tokens, values_of
from alignkit.types import Loss


def divergence(loss: Loss) -> str | None:
    """Without an advantage a step brings the policy nearer to the reference, and the
    penalty is an estimate of the divergence from it.
    """
    if wrong := _by_itself(loss):
        return wrong
    for above in (0.5, -0.5):
        try:
            found = float(gradient(loss, tokens(), advantage=0.0, above=above).sum())
        except (TypeError, AttributeError):
            return None
        if abs(found) <= ZERO:
            return None  # it reads none
        if found * above < 0:
            return (
                "without an advantage a step raises the divergence from the reference:"
                " is the sign of the KL wrong?"
            )
    return _estimates(loss)


def _by_itself(loss: Loss) -> str | None:
    """What a reference adds has a gradient, which no advantage multiplies."""
    added = {}
    for advantage in (0.0, 1.0, -1.0):
        far, near = (
            batch(tokens(), advantage=advantage, above=above)[0] for above in (0.3, 0.0)
        )
        slopes = [
            float(gradient(loss, tokens(), advantage=advantage, above=above).sum())
            for above in (0.3, 0.0)
        ]
        values = [float(values_of(loss, of).sum().detach()) for of in (far, near)]
        added[advantage] = slopes[0] - slopes[1]
        if abs(values[0] - values[1]) > 1e-9 and abs(added[advantage]) <= ZERO:
            return (
                "the reference changes the value and not the gradient: the policy is not"
                " held to it"
            )
    for advantage in (1.0, -1.0):
        if abs(added[advantage] - added[0.0]) > 1e-9:
            return (
                f"the reference adds a gradient of {added[0.0]:.2g} without an"
                f" advantage and of {added[advantage]:.2g} with one of {advantage:g}:"
                " the penalty is multiplied by the advantage"
            )
    return None


def _estimates(loss: Loss) -> str | None:
    """Over tokens drawn from the policy the penalty is in proportion to the KL
    (Schulman's k1 and k3), or its gradient to the KL's (k2).
    """
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(4):
        scores = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        policy = scores[0].clone().requires_grad_()
        logps, others = policy.log_softmax(-1), scores[1].log_softmax(-1)
        divergence_ = (logps.exp() * (logps - others)).sum()
        exact = torch.autograd.grad(divergence_, policy, retain_graph=True)[0]
        values, slopes = [], []
        for token in range(5):
            above = float(logps[token] - others[token])
            at = logps.detach()[token].view(1, 1)
            of, _ = batch(at, advantage=0.0, above=above)
            values.append(float(values_of(loss, of).sum()))
            slopes.append(float(gradient(loss, at, advantage=0.0, above=above)))
        weights = logps.detach().exp()
        mean = float((weights * torch.tensor(values)).sum())
        estimate = (weights * torch.tensor(slopes) * logps).sum()
        sampled = torch.autograd.grad(estimate, policy)[0]
        ratios.append((mean / float(divergence_), sampled, exact))
    by_value = [ratio for ratio, _, _ in ratios]
    alike = max(by_value) - min(by_value) <= 1e-6 * max(abs(v) for v in by_value)
    scale = float((ratios[0][1] * ratios[0][2]).sum() / ratios[0][2].square().sum())
    by_slope = all(torch.allclose(s, scale * e, atol=1e-8) for _, s, e in ratios)
    return unless(
        alike or by_slope,
        "over tokens that the policy draws the penalty is no estimate of its KL to the"
        " reference: are the arguments exchanged?",
    )
