"""What the tokens of a response weigh beside each other, for losses of every kind.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from alignkit.conformance.check import Note
from alignkit.conformance.off_policy import ZERO
from alignkit.conformance.options import REFUSED, numeric_options
from alignkit.types import Loss

# (T,) under these options of the plugin: above 0 where a step does what it should
Weights = Callable[[Mapping[str, Any]], Tensor]
OFF = (0.0, 1.0, 1e-6)  # values of an option that may turn weights off


def fault(loss: Loss, weights: Weights, what: str) -> str | None:
    """A token that is lost, turned round, or weighed otherwise than its neighbours. The
    last two may be meant, where one of the loss's options turns it off.
    """
    found = weights({})
    if not float(found.abs().max()) > ZERO:
        return None  # `direction` says so
    if float(found.min()) < -ZERO:
        wrong = int((found < -ZERO).sum())
        return f"{wrong} of {len(found)} tokens go the wrong way, by their {what}"
    if _even(found):
        return None
    missing = int((found <= ZERO).sum())
    text = (
        f"{missing} of {len(found)} tokens of a response have no gradient"
        if missing
        else f"tokens weigh from {found.min() / found.max():.2g} to 1"
    )
    text = f"{text}, by their {what}"
    if name := _switch(loss, weights):
        return Note(f"{text}; the option {name} turns it off")
    return (
        f"{text}: the whole response was sampled, each token as it was; where it is"
        " meant let an option turn it off, or name TRL's own loss by Loss(…, like=…)"
    )


def _even(found: Tensor) -> bool:
    return bool(found.isfinite().all()) and torch.allclose(
        found, found.max().expand_as(found), rtol=1e-3, atol=ZERO
    )


def _switch(loss: Loss, weights: Weights) -> str | None:
    """The option under which all tokens weigh the same."""
    for name, value in numeric_options(loss.function).items():
        for off in OFF:
            try:
                found = weights({name: type(value)(off)})
            except REFUSED:
                continue
            if float(found.abs().max()) > ZERO and _even(found):
                return name
    return None
