"""What a policy loss must do off-policy, whatever its definition. Losses whose intent
differs say so by a twin (`like`).

Shapes: B rows, T tokens. Every function returns what is wrong, or None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from alignkit.conformance.check import Note, unless
from alignkit.conformance.divergence import divergence
from alignkit.conformance.off_policy import ZERO, batch, gradient, tokens, values_of
from alignkit.conformance.options import numeric_options
from alignkit.types import Loss

# of tokens that the model is sure of, and of those that it is not
LOGPS = (-0.001, -0.05, -0.5, -1.5, -4.0, -9.0)
# ratios by which a clip, and no soft gate, has left no gradient
FAR_UP, FAR_DOWN = 8.0, 0.125


def _above(loss: Loss) -> float | None:
    return 0.0 if loss.reference == "needed" else None


def every_token(loss: Loss) -> str | None:
    """On-policy no token of a response is left out, sure ones and unlikely ones."""
    logps = torch.tensor([LOGPS], dtype=torch.float64)
    for advantage in (1.0, -1.0):
        found = gradient(loss, logps, advantage=advantage, above=_above(loss))
        missing = int((found.abs() <= ZERO).sum())
        if missing == logps.numel():
            return None  # `direction` says so
        if missing:
            return (
                f"{missing} of {logps.numel()} tokens of a response have no gradient"
                " on-policy: the whole response was sampled"
            )
    return None


def off_policy_direction(loss: Loss) -> str | None:
    """A step never goes against the advantage, on either side of the old policy."""
    for advantage in (1.0, -1.0):
        for ratio in (0.5, 0.9, 1.1, 1.5):
            found = gradient(
                loss, tokens(), advantage=advantage, ratio=ratio, above=_above(loss)
            )
            if float((found * advantage).max()) > ZERO:
                return (
                    f"at a ratio of {ratio:g} a step goes against an advantage of"
                    f" {advantage:g}: is the ratio inverted?"
                )
    grown, shrunk = (
        gradient(loss, tokens(), advantage=1.0, ratio=r, above=_above(loss)).abs()
        for r in (1.1, 0.9)
    )
    return unless(
        float(grown) >= float(shrunk) * (1 - 1e-9) or float(grown) <= ZERO,
        "likelier tokens weigh less than unlikelier ones: is the ratio inverted?",
    )


def recovery(loss: Loss) -> str | None:
    """What the policy has already moved the wrong way can be brought back."""
    for advantage, ratio in ((1.0, 0.5), (-1.0, 1.5)):
        found = gradient(
            loss, tokens(), advantage=advantage, ratio=ratio, above=_above(loss)
        )
        if float(found.abs().max()) <= ZERO:
            return (
                f"with an advantage of {advantage:g} and a ratio of {ratio:g} nothing"
                " is learnt, though the policy went the wrong way: min and max"
                " exchanged?"
            )
    return None


def _still(loss: Loss, advantage: float, ratio: float) -> bool:
    found = gradient(
        loss, tokens(), advantage=advantage, ratio=ratio, above=_above(loss)
    )
    return float(found.abs().max()) <= ZERO


def both_sides(loss: Loss) -> str | None:
    """A loss that clips good tokens clips bad ones too."""
    up, down = _still(loss, 1.0, FAR_UP), _still(loss, -1.0, FAR_DOWN)
    if up and not down:
        return "clips for advantages above 0 only: bad tokens are pushed down for ever"
    return unless(up or not down, "clips for advantages below 0 only")


def clip_range(loss: Loss) -> str | None:
    """Where a loss clips, one of its options says so: 1 + option, 1 - option, or the
    option itself.
    """
    known = numeric_options(loss.function)
    for advantage, far, sign in ((1.0, FAR_UP, 1), (-1.0, FAR_DOWN, -1)):
        if not _still(loss, advantage, far):
            continue
        edge = _edge(loss, advantage, far)
        stated = {name: (1 + sign * v, v) for name, v in known.items()}
        if known and not any(
            math.isclose(edge, value, rel_tol=1e-4)
            for values in stated.values()
            for value in values
        ):
            options = ", ".join(f"{name} {value:g}" for name, value in known.items())
            return f"clips at a ratio of {edge:.4g}; its options say {options}"
    return None


def _edge(loss: Loss, advantage: float, far: float) -> float:
    """The ratio between 1 and `far` from which on nothing is learnt."""
    low, high = 0.0, math.log(far)
    for _ in range(60):
        middle = (low + high) / 2
        if _still(loss, advantage, math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def lengths(loss: Loss) -> str | None:
    """A token's value does not hang on how many there are: `normalize` divides."""
    if not loss.normalize or loss.depends_on_microbatch:
        return None
    short, long = (
        gradient(loss, tokens(count), advantage=1.0, above=_above(loss))[0, 0]
        for count in (2, 6)
    )
    return unless(
        math.isclose(float(short), float(long), rel_tol=1e-6),
        f"a token of 6 weighs {float(long / short):.3g} of one of 2: the length is"
        " counted here and again by `normalize`",
    )


def reference(loss: Loss) -> str | None:
    """The ratio is to the policy that sampled; the reference is for the divergence."""
    try:
        gradient(loss, tokens(), advantage=1.0, above=None)
    except (TypeError, AttributeError) as error:
        if loss.reference != "needed":
            return (
                f"fails where there is no reference (train.beta: 0): {error}; say"
                ' Loss(…, reference="needed")'
            )
    by_old = [
        gradient(loss, tokens(), advantage=1.0, ratio=r, above=0.1)
        for r in (0.95, 1.05)
    ]
    reads_old = not torch.allclose(*by_old)
    for advantage in (1.0, -1.0):
        apart = [
            gradient(loss, tokens(), advantage=a, above=v)
            for v in (0.1, 0.2)
            for a in (0.0, advantage)
        ]
        weighed = torch.allclose(apart[1] - apart[0], apart[3] - apart[2], rtol=1e-6)
        if not weighed and not reads_old:
            return (
                "weighs the advantage by the ratio to the reference and reads no"
                " old_logps: the ratio is to the policy that sampled"
            )
    if not reads_old:
        return Note("reads no old_logps: off-policy steps are not corrected")
    return None


def entropy_without_gradient(loss: Loss) -> str | None:
    """A value that follows the entropies teaches nothing of them unless asked for."""
    if loss.entropy_gradient:
        return None
    of, _ = batch(tokens(3), advantage=1.0, above=0.1)
    other = dataclasses.replace(of, entropies=torch.full_like(of.logps, 2.0))
    if torch.allclose(values_of(loss, of), values_of(loss, other)):
        return None
    return Note(
        "its value follows the entropies, which carry no gradient; say Loss(…,"
        " entropy_gradient=True) where they should"
    )


def options_change(loss: Loss) -> str | None:
    """Every numeric option changes a value or a gradient somewhere."""
    for name, value in numeric_options(loss.function).items():
        others = (value * 2 + 0.05, value / 2, value + 1)
        if not any(_differs(loss, {name: type(value)(other)}) for other in others):
            return f"the option {name} changes nothing"
    return None


def _differs(loss: Loss, options: Mapping[str, Any]) -> bool:
    logps = torch.tensor([LOGPS], dtype=torch.float64)
    for advantage in (1.0, -1.0, 0.0):
        for ratio in (0.02, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 50.0):
            for above in (0.3, -0.3):
                given = {"advantage": advantage, "ratio": ratio, "above": above}
                one = gradient(loss, logps, **given)
                other = gradient(loss, logps, **given, options=options)
                if not torch.allclose(one, other, rtol=1e-9, atol=1e-12):
                    return True
                of, _ = batch(logps, **given)
                if not torch.allclose(
                    values_of(loss, of), values_of(loss, of, **options)
                ):
                    return True
    return False


PROPERTIES = {
    "every token": every_token,
    "off-policy direction": off_policy_direction,
    "recovery": recovery,
    "both sides clipped": both_sides,
    "clip range": clip_range,
    "length once": lengths,
    "old and reference": reference,
    "divergence": divergence,
    "options": options_change,
    "entropy": entropy_without_gradient,
}
