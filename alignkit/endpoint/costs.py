"""What requests to a paid endpoint will cost, did cost, and may cost at most."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignkit.errors import InputError

Usage = tuple[int, int]  # tokens of an answer: of its input, of its output
CHARACTERS_PER_TOKEN = 4  # rule of thumb for English; estimates say so
TEMPLATE_TOKENS = 16  # of a chat template, per message; for upper bounds


@dataclass(frozen=True, slots=True)
class Estimate:
    """Before any request: input tokens by the rule of thumb, output tokens at most,
    dollars at most for the output.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None

    def __str__(self) -> str:
        cost = "price unknown" if self.dollars is None else f"about ${self.dollars:.4f}"
        return (
            f"{self.requests} requests, about {self.input_tokens} tokens in (characters"
            f" / {CHARACTERS_PER_TOKEN}), at most {self.output_tokens} out: {cost}"
        )


def estimate(bodies: Sequence[Mapping[str, object]], price: float | None) -> Estimate:
    """`price`: dollars per million tokens, in and out."""
    tokens_in = sum(len(_text(body)) // CHARACTERS_PER_TOKEN for body in bodies)
    tokens_out = sum(_output_limit(body) for body in bodies)
    return Estimate(
        len(bodies), tokens_in, tokens_out, _dollars(tokens_in + tokens_out, price)
    )


class Budget:
    """Tokens and dollars used, against a limit.

    A request is admitted only when what is spent, plus the upper bounds of those under
    way and of itself, stays within the limit. The bound of the input is its number of
    bytes: no tokenizer makes more tokens than that.
    """

    def __init__(self, limit: float | None, price: float | None) -> None:
        if limit is not None and price is None:
            raise InputError(
                "a cost limit needs a price: give the dollars per million tokens of"
                " this model"
            )
        for name, value in (("cost limit", limit), ("price", price)):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"the {name} is {value}; expected dollars, 0 or more")
        self.limit = limit
        self.price = price
        self.input_tokens = 0
        self.output_tokens = 0
        self.unreported = 0  # answers that came without `usage`
        self.under_way = 0
        self._reserved = 0
        self._doubtful = 0

    @property
    def dollars(self) -> float | None:
        """Spent so far, by the servers' own `usage`."""
        return _dollars(self.input_tokens + self.output_tokens, self.price)

    def reserve(self, body: Mapping[str, object]) -> bool:
        """Set the request's upper bound aside; False when it would not fit."""
        bound = _bound(body)
        if self.limit is not None and self.price is not None:
            used = (
                self.input_tokens + self.output_tokens + self._doubtful + self._reserved
            )
            if (used + bound) * self.price / 1e6 > self.limit:
                return False
        self._reserved += bound
        self.under_way += 1
        return True

    def settle(
        self, body: Mapping[str, object], used: Usage | None, answered: bool = True
    ) -> None:
        """Replace the reservation by what was used; an answer without `usage` counts as
        its bound against the limit.
        """
        bound = _bound(body)
        self._reserved -= bound
        self.under_way -= 1
        self.count(used)
        if used is None and answered:
            self.unreported += 1
            self._doubtful += bound

    def count(self, used: Usage | None) -> None:
        """Add (input, output) tokens that were used."""
        self.input_tokens += used[0] if used else 0
        self.output_tokens += used[1] if used else 0

    def doubt(self, body: Mapping[str, object]) -> None:
        """An attempt was lost after it was sent: the server may have charged for it, so
        the limit counts it.
        """
        self._doubtful += _bound(body)

    def __str__(self) -> str:
        spent = f"{self.input_tokens} tokens in, {self.output_tokens} out"
        if self.dollars is not None:
            spent += f", ${self.dollars:.4f}"
        return spent + (f" of ${self.limit:.4f}" if self.limit is not None else "")


def usage_of(usage: object) -> Usage | None:
    """(input, output) tokens of an answer's `usage`; None when the server gave none
    that makes sense.
    """
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    whole = [int(c) for c in counts if type(c) in (int, float) and 0 <= c < 10**9]
    return (whole[0], whole[1]) if whole == counts else None


def _text(body: Mapping[str, Any]) -> str:
    if "messages" not in body:
        return str(body.get("prompt", ""))
    return "".join(
        m["content"] if isinstance(m["content"], str) else json.dumps(m["content"])
        for m in body["messages"]
    )


def _output_limit(body: Mapping[str, Any]) -> int:
    return int(body.get("max_tokens", 0)) * int(body.get("n", 1))


def _bound(body: Mapping[str, Any]) -> int:
    template = TEMPLATE_TOKENS * len(body.get("messages", ()))
    return len(_text(body).encode("utf-8", "replace")) + template + _output_limit(body)


def _dollars(tokens: int, price: float | None) -> float | None:
    return None if price is None else tokens * price / 1e6
