"""A loss beside the one of TRL's that it says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignkit.conformance.batches import objective_of
from alignkit.conformance.definition import gap
from alignkit.conformance.laboratory import WHOLE, Cut
from alignkit.types import Loss

if TYPE_CHECKING:
    from alignkit.conformance.laboratory import Laboratory


def twin(loss: Loss, laboratory: Laboratory) -> str | None:
    """The gradient of TRL's own loss under `like`, by the same trainer on the same rows,
    is the plugin's under one of its normalisations.
    """
    method = loss.methods[0]
    stock = Cut(WHOLE.rows, WHOLE.accumulation, dict(loss.like or {}))
    expected = laboratory.gradients(method, None, stock)
    faults = []
    for normalize in loss.normalize or (None,):
        objective = objective_of(loss, normalize)
        found = laboratory.gradients(method, objective, WHOLE)
        wrong = gap(expected, found, f"TRL's {dict(loss.like or {})}")
        if wrong is None:
            return None
        faults.append(f"{normalize or 'per sequence'}: {wrong}")
    return "; ".join(faults)
