"""Stop strings in rollouts: they end a response, and they are kept in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class StopStrings(StoppingCriteria):
    """Ends a row whose new text holds a stop string. `start` must be None at the start
    of each `generate`.

    A stop string that lies wholly in the first `shielded` new tokens does not count
    (`min_new_tokens`).
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], shielded: int = 0) -> None:
        self.tokenizer = tokenizer
        self.stops = tuple(stops)
        self.shielded = shielded
        # a token is at least one byte
        self.reach = max(len(stop.encode()) for stop in stops) + 4
        self.start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """(B,) bool: which rows end with their newest token; transformers asks after
        every token.
        """
        if self.start is None:
            self.start = input_ids.shape[1] - 1
        count = input_ids.shape[1] - self.start
        if count <= self.shielded:
            return torch.zeros(
                len(input_ids), dtype=torch.bool, device=input_ids.device
            )
        if self.shielded:
            done = [self.end(row) > 0 for row in input_ids[:, self.start :].tolist()]
        else:  # the same, from the last few tokens alone
            texts = self.tokenizer.batch_decode(input_ids[:, -min(count, self.reach) :])
            done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)

    def end(self, ids: Sequence[int]) -> int:
        """How many tokens reach to the end of the first stop string that counts; 0 when
        there is none.
        """

        def holds(count: int) -> bool:
            text = self.tokenizer.decode(ids[:count])
            return any(
                text.find(stop, max(0, shield - len(stop) + 1)) >= 0
                for stop in self.stops
            )

        shield = (
            len(self.tokenizer.decode(ids[: self.shielded])) if self.shielded else 0
        )
        if not holds(len(ids)):
            return 0
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle + 1, high)
        return low

    def cut(self, ids: list[int]) -> list[int]:
        """A response without what `generate` pads it with once it has ended."""
        return ids[: self.end(ids) or len(ids)]
