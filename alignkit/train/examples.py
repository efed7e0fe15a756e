"""Rows of data as the trainer of a method takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit.data import encode
from alignkit.recipe.schema import SFT, Policy, Stepped
from alignkit.recipe.trl import setting

if TYPE_CHECKING:
    from datasets import Dataset

    from alignkit.types import Prompt


@dataclass(frozen=True)
class Examples:
    """What is trained on, or validated with, and what became of the rows."""

    dataset: Dataset
    kept: encode.Kept


def examples(
    config: Stepped,
    rows: Sequence[Mapping[str, Any]],
    prompt: Prompt | None,
    tokenizer: Any,
    *,
    context: int,
    engine: str,
) -> Examples:
    """The rows of one part of `data`, rendered, tokenised and cut.

    `context`: positions the model has. `engine`: of the rollouts ("" where there are
    none).
    """
    if isinstance(config, Policy):
        room = encode.prompt_room(config.generation, context, engine)
        return Examples(*encode.problems(rows, prompt, tokenizer, max_prompt=room))
    limit = setting(config, "max_length")
    if isinstance(config, SFT):
        mask = config.train.get("completion_only_loss") is not False
        return Examples(
            *encode.supervised(
                rows, prompt, tokenizer, max_length=limit, mask_prompt=mask
            )
        )
    return Examples(*encode.preferences(rows, prompt, tokenizer, max_length=limit))
