"""What the proofs of a run look at: the live trainer, the real first rows, the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe.schema import Stepped
    from alignkit.run import Run
    from alignkit.train.seam import Seam
    from alignkit.types import Prompt

ROWS = 8  # of the training data that proofs look at


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A run just before training; the proofs at its end see it just after.

    `rows` are the first of `data.train`, as loaded; `encoded` those that the trainer
    got, as they were then.
    """

    config: Stepped
    registry: Registry
    run: Run
    trainer: Seam
    tokenizer: Any
    prompt: Prompt | None
    rows: Sequence[Mapping[str, Any]]
    engine: str  # of the rollouts; "" where there are none
    # the settings of the trainer just after it was made, and what it trains on
    settings: Mapping[str, Any]
    encoded: Sequence[Mapping[str, Any]]
