"""What a supervised loss must do, whatever its definition. Losses whose intent differs
say so by a twin (`like`), or by an option that turns it off.

Shapes: T tokens of one response. Every function returns what is wrong, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit.conformance import weights
from alignkit.conformance.check import unless
from alignkit.conformance.off_policy import LOGPS, tokens
from alignkit.conformance.options import numeric_options, read
from alignkit.types import Loss, SFTBatch

ENTROPIES = (0.01, 0.2, 0.7, 1.0, 1.6, 3.0)


def slopes(
    loss: Loss, logps: Tensor, entropies: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The values of a response's tokens, and how likelier (T,) a step makes each."""
    leaf = logps.detach().clone().requires_grad_()
    result = loss.function(
        SFTBatch(leaf, torch.ones_like(leaf, dtype=torch.bool), entropies), **options
    )
    values = result[0] if isinstance(result, tuple) else result
    (found,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    found = torch.zeros_like(leaf) if found is None else found
    return values.detach(), -found[0]


def every_token(loss: Loss) -> str | None:
    """Every demonstrated token is learnt, and none more than another."""
    even, sure = tokens(len(LOGPS)), torch.tensor([LOGPS], dtype=torch.float64)
    entropies = torch.tensor([ENTROPIES], dtype=torch.float64)
    declared = loss.like is not None  # `twin` compares the weights with TRL's own
    for what, logps, entropy in (
        ("place", even, torch.ones_like(even)),
        ("probability", sure, torch.ones_like(even)),
        ("entropy", even, entropies),
    ):
        if declared and what == "probability":
            continue

        def of(
            options: Mapping[str, Any], logps: Tensor = logps, entropy: Tensor = entropy
        ) -> Tensor:
            return slopes(loss, logps, entropy, options)[1]

        if wrong := weights.fault(loss, of, what):
            return wrong
    return None


def lengths(loss: Loss) -> str | None:
    """A token's value does not hang on how many there are: `normalize` divides."""
    if loss.depends_on_microbatch:
        return None
    short, long = (
        float(slopes(loss, tokens(n), torch.ones(1, n).double(), {})[1][0])
        for n in (2, 6)
    )
    return unless(
        abs(short - long) <= 1e-6 * abs(short),
        f"a token of 6 weighs {long:.3g}, one of 2 {short:.3g}: the length is counted"
        " here and again by `normalize`",
    )


def options_change(loss: Loss) -> str | None:
    """Every numeric option changes a value or a gradient somewhere."""
    logps = torch.tensor([LOGPS], dtype=torch.float64)
    entropies = torch.tensor([ENTROPIES], dtype=torch.float64)
    plain = slopes(loss, logps, entropies, {})

    def differs(options: Mapping[str, Any]) -> bool:
        found = slopes(loss, logps, entropies, options)
        return not all(
            torch.allclose(one, other, rtol=1e-9, atol=1e-12)
            for one, other in zip(plain, found, strict=True)
        )

    for name, value in numeric_options(loss.function).items():
        others = (type(value)(v) for v in (value * 2 + 0.05, value / 2, value + 1))
        if not any(read(differs, {name: other}) for other in others):
            return f"the option {name} changes nothing"
    return None


PROPERTIES = {
    "every token": every_token,
    "length once": lengths,
    "options": options_change,
}
