"""The one interface of everything that generates text."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from alignkit.errors import InputError
from alignkit.machine.gpus import cuda_available
from alignkit.types import Message

# a list of messages goes through the model's chat template
PromptText = str | Sequence[Message]
OnDone = Callable[[int, "list[Completion]"], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep every token. Generation ends
    at the first of `stop`, which stays in the text, at the end-of-sequence token, or
    after `max_new_tokens`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 1024
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1  # completions per prompt
    logprobs: bool = False  # whether completions carry log-probs, which cost time

    def __post_init__(self) -> None:
        rules = {
            f"temperature must be at least 0 and finite, got {self.temperature}": (
                0 <= self.temperature < math.inf
            ),
            f"top_p must lie above 0 and not above 1, got {self.top_p}": (
                0 < self.top_p <= 1
            ),
            f"top_k must be at least 0 (0: all tokens), got {self.top_k}": (
                self.top_k >= 0
            ),
            f"max_new_tokens must be at least 1, got {self.max_new_tokens}": (
                self.max_new_tokens >= 1
            ),
            f"min_new_tokens must lie in 0 to max_new_tokens ({self.max_new_tokens}), got {self.min_new_tokens}": (
                0 <= self.min_new_tokens <= self.max_new_tokens
            ),
            f"n must be at least 1, got {self.n}": self.n >= 1,
            "a stop string must not be empty": all(self.stop),
        }
        if broken := [
            f"sampling: {text}" for text, holds in rules.items() if not holds
        ]:
            raise InputError(*broken)


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text. `finish_reason` is `length` when `max_new_tokens` cut it."""

    text: str
    finish_reason: str  # "stop" | "length"
    tokens: int
    # with the end-of-sequence token, where the engine knows them
    token_ids: tuple[int, ...] | None = None
    # of `token_ids`, under the untempered model
    logprobs: tuple[float, ...] | None = None


def local_engine(asked: str) -> str:
    """`auto` is vLLM where it is installed and there is a GPU, else transformers."""
    if asked != "auto":
        return asked
    fits = importlib.util.find_spec("vllm") is not None and cuda_available()
    return "vllm" if fits else "transformers"


class Engine(Protocol):
    """`name` is the engine's; `model` is the model as provenance records it."""

    name: str
    model: str

    def generate(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        on_done: OnDone | None = None,
    ) -> list[list[Completion]]:
        """`sampling.n` completions per prompt, in the order of `prompts`.

        `on_done(index, completions)` is called as soon as all completions of one prompt
        are there.
        """
        ...

    def loglikelihoods(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[list[float]]:
        """For each (prompt, choices): the summed log-prob (nats) of every choice as the
        prompt's continuation.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...
