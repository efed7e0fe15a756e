"""What a policy loss must do off-policy, whatever its definition. Losses whose intent
differs say so by a twin (`like`).

Shapes: B rows, T tokens. Every function returns what is wrong, or None.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit.conformance import weights
from alignkit.conformance.check import Note, unless
from alignkit.conformance.divergence import divergence
from alignkit.conformance.off_policy import (
    LOGPS,
    ZERO,
    batch,
    gradient,
    tokens,
    values_of,
)
from alignkit.conformance.options import numeric_options, read
from alignkit.types import Loss

# ratios by which a clip, and no soft gate, has left no gradient
FAR_UP, FAR_DOWN = 8.0, 0.125


def _above(loss: Loss) -> float | None:
    return 0.0 if loss.reference == "needed" else None


def every_token(loss: Loss) -> str | None:
    """On-policy every token of a response weighs the same, sure ones and unlikely ones,
    early ones and late ones.
    """
    sure, even = torch.tensor([LOGPS], dtype=torch.float64), tokens(len(LOGPS))
    for what, logps in (("place", even), ("probability", sure)):
        for sign in (1.0, -1.0):

            def of(
                options: Mapping[str, Any], logps: Tensor = logps, sign: float = sign
            ) -> Tensor:
                above = _above(loss)
                found = gradient(
                    loss, logps, advantage=sign, above=above, options=options
                )
                return -sign * found[0]

            if wrong := weights.fault(loss, of, what):
                return wrong
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


def _still(loss: Loss, advantage: float, ratio: float, **options: Any) -> bool:
    found = gradient(
        loss,
        tokens(),
        advantage=advantage,
        ratio=ratio,
        above=_above(loss),
        options=options,
    )
    return float(found.abs().max()) <= ZERO


def both_sides(loss: Loss) -> str | None:
    """A loss that clips good tokens clips bad ones too."""
    up, down = _still(loss, 1.0, FAR_UP), _still(loss, -1.0, FAR_DOWN)
    if up and not down:
        return "clips for advantages above 0 only: bad tokens are pushed down for ever"
    return unless(up or not down, "clips for advantages below 0 only")


def clip_range(loss: Loss) -> str | None:
    """Where an option moves the clip, it says where: 1 + option, 1 - option, or the
    option itself.
    """
    for advantage, far, sign in ((1.0, FAR_UP, 1), (-1.0, FAR_DOWN, -1)):
        if not _still(loss, advantage, far):
            continue
        edge = _edge(loss, advantage, far)
        known = {
            name: v
            for name, v in numeric_options(loss.function).items()
            if _edge(loss, advantage, far, **{name: type(v)(v * 0.9)}) != edge
        }
        stated = {name: (1 + sign * v, v) for name, v in known.items()}
        if known and not any(
            math.isclose(edge, value, rel_tol=1e-4)
            for values in stated.values()
            for value in values
        ):
            options = ", ".join(f"{name} {value:g}" for name, value in known.items())
            return f"clips at a ratio of {edge:.4g}; its options say {options}"
    return None


def named_sides(loss: Loss) -> str | None:
    """An option named after a side of the clip does nothing on the other."""
    for name, value in numeric_options(loss.function).items():
        words = set(name.split("_"))
        high = bool(words & {"high", "upper"})
        if high == bool(words & {"low", "lower"}):
            continue
        # where a bound of this option would lie on the other side, and beside it
        bounds = (value, 1 - value) if high else (value, 1 + value)
        ratios = [
            bound + step * value
            for bound in bounds
            for step in (-0.05, 0.05)
            if bound + step * value > 0 and (bound + step * value < 1) == high
        ]
        for ratio, advantage, factor in itertools.product(
            ratios, (1.0, -1.0), (1.1, 1 / 1.1)
        ):
            given = {"advantage": advantage, "ratio": ratio, "above": _above(loss)}
            other = {name: type(value)(value * factor)}
            one = gradient(loss, tokens(), **given)
            if not torch.allclose(
                one, gradient(loss, tokens(), **given, options=other)
            ):
                side = "under" if high else "above"
                return (
                    f"the option {name} acts at a ratio of {ratio:.4g}, {side} 1: are"
                    " the low and the high bound exchanged?"
                )
    return None


def _edge(loss: Loss, advantage: float, far: float, **options: Any) -> float:
    """The ratio between 1 and `far` from which on nothing is learnt."""
    low, high = 0.0, math.log(far)
    for _ in range(60):
        middle = (low + high) / 2
        if _still(loss, advantage, math.exp(middle), **options):
            high = middle
        else:
            low = middle
    return math.exp(high)


def lengths(loss: Loss) -> str | None:
    """A token's value does not hang on how many there are: `normalize` divides."""
    if not loss.normalize or loss.depends_on_microbatch:
        return None
    for advantage, above in ((1.0, _above(loss)), (0.0, 0.3)):
        short, long = (
            float(gradient(loss, tokens(n), advantage=advantage, above=above)[0, 0])
            for n in (2, 6)
        )
        if not math.isclose(short, long, rel_tol=1e-6, abs_tol=ZERO):
            return (
                f"a token of 6 weighs {long:.3g}, one of 2 {short:.3g}, with an"
                f" advantage of {advantage:g}: the length is counted here and again by"
                " `normalize`"
            )
    return None


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
        if not any(
            read(_differs, loss, {name: type(value)(other)}) for other in others
        ):
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
    "sides of the clip": named_sides,
    "length once": lengths,
    "old and reference": reference,
    "divergence": divergence,
    "options": options_change,
    "entropy": entropy_without_gradient,
}
