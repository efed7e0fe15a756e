"""Stop strings: they end a response, and they are kept in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.sampling import stop_end

if TYPE_CHECKING:
    from torch import Tensor


def special_stops(tokenizer: Any, stops: Sequence[str]) -> tuple[list[int], list[str]]:
    """Stop strings that are one special token, as that token, and the others: a text
    without special tokens never holds the first.
    """
    special = set(tokenizer.all_special_ids) | {
        token
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special
    }
    ids = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in special}
    known = {text: token for token, text in ids.items()}
    tokens = [known[stop] for stop in stops if stop in known]
    return tokens, [stop for stop in stops if stop not in known]


class StopStrings:
    """The stop strings of one generation, looked for in what `decode` makes of tokens.

    The first `shielded` new tokens end nothing (`min_new_tokens`): a stop string that
    lies wholly in them does not count.
    """

    def __init__(
        self,
        stops: Sequence[str],
        decode: Callable[[list[int]], str],
        shielded: int = 0,
    ) -> None:
        self.stops = tuple(stops)
        self.decode = decode
        self.shielded = shielded
        # A token that shows is at least one byte; the first ones may show a part of a
        # character.
        self.reach = max((len(stop.encode()) for stop in stops), default=0) + 4

    def window(self, count: int) -> int:
        """How many of the newest of `count` new tokens `ended` needs."""
        return self.reach if count > self.shielded + self.reach else count

    def ended(self, newest: list[int], count: int) -> bool:
        """Whether the newest of `count` new tokens ends the text; `newest` holds the
        last `window(count)` of them.
        """
        if not self.stops or count <= self.shielded:
            return False
        shield = self._shield(newest) if len(newest) == count else 0
        return stop_end(self.decode(newest), self.stops, shield) > 0

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, up to and with the stop string that ends it."""
        text = self.decode(tokens)
        return text[: stop_end(text, self.stops, self._shield(tokens)) or None]

    def end(self, tokens: list[int]) -> int:
        """How many tokens reach to the end of the first stop string that counts; 0 when
        there is none.
        """
        shield = self._shield(tokens)

        def holds(count: int) -> bool:
            return stop_end(self.decode(tokens[:count]), self.stops, shield) > 0

        if not holds(len(tokens)):
            return 0
        low, high = 1, len(tokens)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle + 1, high)
        return low

    def cut(self, tokens: list[int]) -> list[int]:
        """A response without what `generate` pads it with once it has ended."""
        return tokens[: self.end(tokens) or len(tokens)]

    def _shield(self, tokens: list[int]) -> int:
        """The characters of the shielded tokens."""
        return len(self.decode(tokens[: self.shielded])) if self.shielded else 0


class StopCriterion:
    """Asks after every token which rows of transformers' `generate` have ended.
    `start`, where the new tokens begin, must be None at the start of each.
    """

    def __init__(self, stopping: StopStrings) -> None:
        self.stopping = stopping
        self.start: int | None = None

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """(B,) bool: which rows of (B, L) end with their newest token."""
        import torch

        if self.start is None:
            self.start = input_ids.shape[1] - 1
        count = input_ids.shape[1] - self.start
        newest = input_ids[:, -self.stopping.window(count) :].tolist()
        ended = [self.stopping.ended(row, count) for row in newest]
        return torch.tensor(ended, device=input_ids.device)
