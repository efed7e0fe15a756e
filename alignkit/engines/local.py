"""Conversations with a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignkit.sampling import Sampling
from alignkit.types import Message


def local_chat(
    model: str,
) -> Callable[[Sequence[Sequence[Message]], Mapping[str, Any]], list[str]]:
    """A model in this process that answers conversations: what a local judge's `create`
    returns.
    """
    from alignkit import models
    from alignkit.engines.transformers import TransformersEngine

    engine = TransformersEngine(*models.load(model, for_training=False), name=model)

    def answer(
        conversations: Sequence[Sequence[Message]], sampling: Mapping[str, Any]
    ) -> list[str]:
        return [
            completions[0].text
            for completions in engine.generate(conversations, Sampling(**sampling))
        ]

    return answer
