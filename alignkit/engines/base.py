"""The one interface of everything that generates text."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from alignkit.machine.gpus import cuda_available
from alignkit.sampling import Completion, PromptText, Sampling

__all__ = ["Completion", "Engine", "Likelihood", "OnDone", "PromptText", "Sampling"]

OnDone = Callable[[int, list[Completion]], None]


class Likelihood(NamedTuple):
    """Of a continuation: its summed log-prob (nats), and whether greedy decoding would
    have said it; None where that cannot be had.
    """

    logprob: float
    greedy: bool | None


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
    ) -> list[list[Likelihood]]:
        """For each (prompt, choices): the likelihood of every choice as the prompt's
        continuation; an empty prompt is the start token, or the end token where there
        is none.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...
