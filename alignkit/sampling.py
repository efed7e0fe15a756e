"""How completions are drawn, and what one is: every option once, with its bounds and
its names elsewhere.

A recipe's `generation` and an eval's `sampling` take their keys, defaults and bounds
from here; each engine takes the names by which it knows an option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from alignkit.errors import InputError
from alignkit.types import Message

# a list of messages goes through the model's chat template
PromptText = str | Sequence[Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of one sampling option. A name is "" where there is none."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    trl: str = ""  # a field of TRL's GRPOConfig and RLOOConfig
    transformers: str = ""  # of GenerationConfig, where TRL has no field
    vllm: str = ""  # of SamplingParams
    openai: str = ""  # of an OpenAI-compatible server's request
    vllm_server: str = ""  # of a request that only vLLM's servers take
    late: bool = False  # came after 0.1: at its default it leaves no trace in a record
    was: str = ""  # the recipe key by which it was stated in an earlier version

    def faults(self, name: str, value: float) -> list[str]:
        """What is wrong with a value, in words."""
        found = []
        if not value >= self.least:
            found.append(f"{name} must be at least {self.least:g}, got {value}")
        if not value > self.above:
            found.append(f"{name} must be above {self.above:g}, got {value}")
        if value == math.inf:
            found.append(f"{name} must be finite, got {value}")
        elif not value <= self.most:
            found.append(f"{name} must be at most {self.most:g}, got {value}")
        return found


def _option(default: Any, **known: Any) -> Any:
    return field(default=default, metadata={"option": Option(**known)})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 keep every token, and
    a `repetition_penalty` of 1 none back. Generation ends at the first of `stop`, which
    stays in the text, at the end-of-sequence token, or after `max_new_tokens`.

    Raises:
        InputError: a value out of bounds.
    """

    temperature: float = _option(
        1.0, least=0, trl="temperature", vllm="temperature", openai="temperature"
    )
    top_p: float = _option(
        1.0, above=0, most=1, trl="top_p", vllm="top_p", openai="top_p"
    )
    top_k: int = _option(0, least=0, trl="top_k", vllm="top_k", openai="top_k")
    min_p: float = _option(
        0.0,
        least=0,
        most=1,
        trl="min_p",
        vllm="min_p",
        vllm_server="min_p",
        late=True,
        was="train.min_p",
    )
    repetition_penalty: float = _option(
        1.0,
        above=0,
        trl="repetition_penalty",
        vllm="repetition_penalty",
        vllm_server="repetition_penalty",
        late=True,
        was="train.repetition_penalty",
    )
    max_new_tokens: int = _option(
        1024,
        least=1,
        trl="max_completion_length",
        vllm="max_tokens",
        openai="max_tokens",
    )
    min_new_tokens: int = _option(
        0,
        least=0,
        transformers="min_new_tokens",
        vllm="min_tokens",
        vllm_server="min_tokens",
    )
    stop: tuple[str, ...] = _option(
        (), transformers="stop_strings", vllm="stop", vllm_server="stop"
    )
    # Set by what asks for completions, not by a recipe.
    seed: int | None = None
    n: int = 1  # completions per prompt
    logprobs: bool = False  # whether completions carry log-probs, which cost time

    def __post_init__(self) -> None:
        faults = []
        for name, option in OPTIONS.items():
            if name != "stop":
                faults += option.faults(name, getattr(self, name))
        if self.min_new_tokens > self.max_new_tokens:
            faults.append(
                f"min_new_tokens is {self.min_new_tokens}, more than max_new_tokens"
                f" ({self.max_new_tokens})"
            )
        if self.n < 1:
            faults.append(f"n must be at least 1, got {self.n}")
        if not all(self.stop):
            faults.append("a stop string must not be empty")
        if faults:
            raise InputError(*(f"sampling: {fault}" for fault in faults))

    def record(self) -> dict[str, Any]:
        """The options by name, without later ones at their default: what was written by
        an earlier version stays equal to it.
        """
        known = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        for name, option in OPTIONS.items():
            if option.late and known[name] == DEFAULTS[name]:
                del known[name]
        return known

    def named(self, engine: str) -> dict[str, Any]:
        """The options under the names that an engine knows them by.

        `engine` is a field of `Option`: `trl`, `transformers`, `vllm`, `openai` or
        `vllm_server`.
        """
        names = {name: getattr(option, engine) for name, option in OPTIONS.items()}
        return {theirs: getattr(self, name) for name, theirs in names.items() if theirs}

    def beyond_trl(self, engine: str) -> dict[str, Any]:
        """Options not at their default that TRL has no field for, by the names of its
        engine (`transformers` or `vllm`).
        """
        found = {}
        for name in self.stated():
            if not OPTIONS[name].trl:
                value = getattr(self, name)
                listed = list(value) if isinstance(value, tuple) else value
                found[getattr(OPTIONS[name], engine)] = listed
        return found

    def stated(self) -> list[str]:
        """The options that are not at their default."""
        return [name for name in OPTIONS if getattr(self, name) != DEFAULTS[name]]


OPTIONS: dict[str, Option] = {
    spec.name: spec.metadata["option"]
    for spec in fields(Sampling)
    if "option" in spec.metadata
}
DEFAULTS: dict[str, Any] = {spec.name: spec.default for spec in fields(Sampling)}


REFUSED = "refused"  # finish reason: the text is the server's refusal


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text. `finish_reason` is `length` when `max_new_tokens` cut it,
    `refused` where the server gave its own words in the place of an answer.
    """

    text: str
    finish_reason: str  # "stop" | "length" | "refused"
    tokens: int
    # with the end-of-sequence token, where the engine knows them
    token_ids: tuple[int, ...] | None = None
    # of `token_ids`, under the untempered model
    logprobs: tuple[float, ...] | None = None


def stop_end(text: str, stops: Sequence[str], shield: int = 0) -> int:
    """Where the stop string that ends first ends in a text; 0 when there is none.

    One that lies wholly in the first `shield` characters does not count.
    """
    places = [(text.find(s, max(0, shield - len(s) + 1)), len(s)) for s in stops]
    return min((at + length for at, length in places if at >= 0), default=0)
