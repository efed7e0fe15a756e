"""What a preference loss must do, whatever its definition.

Shapes: B pairs. Every function returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit.conformance import weights
from alignkit.conformance.check import Note, unless
from alignkit.conformance.options import numeric_options, read
from alignkit.types import Loss, PreferenceBatch

SIDES = ("chosen", "rejected")
LENGTHS = (3, 5)  # of the chosen and the rejected response
# log-ratios to the reference of the chosen and the rejected response, no two alike
GAPS = ((0.0, 0.0), (0.7, -0.4), (-0.5, 0.3), (1.5, 1.2), (-2.0, -1.0))
ZERO = 1e-12
Leaves = dict[str, Tensor]


def batch(
    gaps: tuple[float, float], shift: float = 0.0, side: str = ""
) -> tuple[PreferenceBatch, Leaves]:
    """A pair with these log-ratios to the reference, and its leaves; `shift` nats are
    added to policy and reference of one side.
    """
    leaves: Leaves = {}
    fields: dict[str, Any] = {}
    for name, length, gap in zip(SIDES, LENGTHS, gaps, strict=True):
        moved = shift if name == side else 0.0
        each = torch.linspace(-0.4, -1.6, length, dtype=torch.float64)[None]
        each = each + moved / length
        policy = (each + gap / length).requires_grad_()
        reference = each.sum(1).requires_grad_()
        leaves |= {name: policy, f"ref_{name}": reference}
        fields[f"{name}_logps"] = policy.sum(1)
        fields[f"ref_{name}_logps"] = reference
        fields[f"{name}_token_logps"] = policy
        fields[f"{name}_mask"] = torch.ones_like(policy, dtype=torch.bool)
    return PreferenceBatch(**fields), leaves


def values_of(loss: Loss, of: PreferenceBatch, **options: Any) -> Tensor:
    """The plugin's values, one per pair."""
    result = loss.function(of, **options)
    return result[0] if isinstance(result, tuple) else result


def slopes(
    loss: Loss, gaps: tuple[float, float], **options: Any
) -> tuple[float, dict[str, float]]:
    """The value of a pair, and its slope with the log-probs of each part."""
    of, leaves = batch(gaps)
    value = values_of(loss, of, **options).sum()
    if not value.requires_grad:
        return float(value), dict.fromkeys(leaves, 0.0)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    each = {
        name: 0.0 if slope is None else float(slope.mean())
        for name, slope in zip(leaves, found, strict=True)
    }
    return float(value), each


def references(loss: Loss) -> str | None:
    """Both references are read, or none and the loss says so."""
    read = {
        side
        for gaps in GAPS
        for side in SIDES
        if abs(slopes(loss, gaps)[1][f"ref_{side}"]) > ZERO
    }
    if loss.reference == "none":
        return unless(not read, "says that it reads no reference, and reads one")
    if not read:
        return (
            'reads no reference log-probs; say Loss(…, reference="none") where that is'
            " meant"
        )
    missing = sorted(set(SIDES) - read)
    return unless(
        not missing, f"reads no reference of the {', '.join(missing)} response"
    )


def shifts(loss: Loss) -> str | None:
    """What policy and reference share cancels: only their ratio counts. Beside it a
    likelihood may stand by itself, which the gaps do not change (RPO).
    """
    if loss.reference == "none":
        return None
    _, each = slopes(loss, GAPS[0])
    for side, right in zip(SIDES, (1, -1), strict=True):
        changes = [
            float(values_of(loss, batch(gaps, 1.5, side)[0]).sum())
            - float(values_of(loss, batch(gaps)[0]).sum())
            for gaps in GAPS
        ]
        widest = max(changes, key=abs)
        likelihood = (
            max(changes) - min(changes) <= 1e-8
            and right * widest < 0
            and right * each[f"ref_{side}"] > 0
        )
        if abs(widest) > 1e-8 and not likelihood:
            return (
                f"the same added to policy and reference of the {side} response"
                f" changes the loss by {widest:.3g}: are the references exchanged, or"
                " is one of the wrong sign?"
            )
    return None


def every_token(loss: Loss) -> str | None:
    """Every token of a response counts, and none more than another."""
    for gaps in GAPS:
        for side in SIDES:

            def of(
                options: Mapping[str, Any],
                gaps: tuple[float, float] = gaps,
                side: str = side,
            ) -> Tensor:
                of, leaves = batch(gaps)
                (found,) = torch.autograd.grad(
                    values_of(loss, of, **options).sum(),
                    leaves[side],
                    allow_unused=True,
                )
                if found is None:
                    return torch.zeros(1)
                # the way of a whole response is another check's
                return found[0] * found.sum().sign()

            if wrong := weights.fault(loss, of, f"place in the {side} response"):
                return wrong
    return None


def both_by_beta(loss: Loss) -> str | None:
    """`beta` weighs both responses: where neither has moved, how one weighs beside the
    other does not follow from it.
    """
    value = numeric_options(loss.function).get("beta")
    if value is None:
        return None
    parts = SIDES if loss.reference == "none" else ("ref_chosen", "ref_rejected")
    shares = []
    for beta in (value, value * 2):
        _, each = slopes(loss, (0.0, 0.0), beta=type(value)(beta))
        chosen, rejected = (abs(each[part]) for part in parts)
        if chosen + rejected <= ZERO:
            return None
        shares.append(chosen / (chosen + rejected))
    if abs(shares[0] - shares[1]) <= 1e-6:
        return None
    text = (
        f"with twice the beta the chosen response has {shares[1]:.2g} of the gradient"
        f" in place of {shares[0]:.2g}"
    )
    if loss.reference == "none":
        return Note(f"{text}: a term beside the margin, or beta on one side only")
    return f"{text}: is it on one side only?"


def direction(loss: Loss) -> str | None:
    """A step never makes the rejected response likelier against the chosen one."""
    gains = []
    for gaps in GAPS:
        _, each = slopes(loss, gaps)
        gains.append(each["rejected"] - each["chosen"])
    if max(gains) <= ZERO and min(gains) >= -ZERO:
        return "the gradient is zero: nothing is learnt"
    if gains[0] < -ZERO or min(gains[:3]) < -ZERO:
        return "the sign is wrong: it makes rejected responses likelier"
    return None


def both_responses(loss: Loss) -> str | None:
    """Which side a loss leaves alone is worth a sentence."""
    moved = {
        side
        for gaps in GAPS
        for side in SIDES
        if abs(slopes(loss, gaps)[1][side]) > ZERO
    }
    missing = sorted(set(SIDES) - moved)
    return (
        Note(f"learns nothing from {', '.join(missing)} responses") if missing else None
    )


def options_change(loss: Loss) -> str | None:
    """Every numeric option changes a value or a gradient somewhere."""
    for name, value in numeric_options(loss.function).items():
        others = [type(value)(v) for v in (value * 2 + 0.05, value / 2, value + 0.4)]
        pairs = [(gaps, other) for gaps in GAPS for other in others if other != value]
        if not any(read(_differs, loss, g, {name: v}) for g, v in pairs):
            return f"the option {name} changes nothing"
    return None


def _differs(loss: Loss, gaps: tuple[float, float], options: Mapping[str, Any]) -> bool:
    return slopes(loss, gaps) != slopes(loss, gaps, **options)


PROPERTIES = {
    "references": references,
    "common shift": shifts,
    "off-policy direction": direction,
    "every token": every_token,
    "both responses": both_responses,
    "beta on both": both_by_beta,
    "options": options_change,
}
