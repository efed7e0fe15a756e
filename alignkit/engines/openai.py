"""Any OpenAI-compatible endpoint as an engine: chat for messages, completions for plain
text.
"""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from alignkit.endpoint.costs import Budget, usage_of
from alignkit.endpoint.faults import BadAnswer
from alignkit.endpoint.http import Endpoint, Outcome
from alignkit.engines.base import Completion, OnDone, PromptText, Sampling
from alignkit.engines.stopping import stop_end
from alignkit.errors import InputError
from alignkit.sampling import OPTIONS

CHAT = "/chat/completions"
COMPLETIONS = "/completions"
# Reasons of servers that mean: this is not the whole answer.
CUT = (
    "length",
    "max_tokens",
    "content_filter",
    "safety",
    "recitation",
    "abort",
    "insufficient_system_resource",
)
_APART = 1_000_003  # between the seeds of a prompt that is asked twice


class OpenAIEngine:
    """Text from an OpenAI-compatible server.

    Args:
        model: as the server names it.
        base_url: e.g. `http://localhost:8000/v1`.
        key_variable: the environment variable that holds the key; None for a server
            without one.
        api: `auto` sends messages to chat and plain text to completions; `chat` sends
            text as one user message; `completions` refuses messages.
        server: `vllm` takes vLLM's own fields; `auto` asks the server's model list
            whether it is vLLM.
        logprobs: ask for the log-probs of the tokens.
        reasoning: where the server returns the reasoning apart, put it back in front as
            `<think>…</think>`.
        budget: price and limit; counts what was used.
        http: `concurrency`, `timeout`, `attempts`, `requests_per_minute`, `backoff` of
            `Endpoint`.

    Stop strings stay in the text, as with every engine. vLLM does that itself. Other
    servers remove them without saying whether one was there, so they are not sent: the
    text is generated to its end and cut here after the first stop string, which costs
    the tokens behind it. `tokens` counts those too. Where a server counts n completions
    in one sum, each gets its share by characters.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_url: str,
        key_variable: str | None = None,
        *,
        api: Literal["auto", "chat", "completions"] = "auto",
        server: Literal["auto", "vllm", "other"] = "auto",
        logprobs: bool = False,
        reasoning: bool = False,
        budget: Budget | None = None,
        **http: Any,
    ) -> None:
        self.model = model
        self.endpoint = Endpoint(
            base_url,
            key_variable=key_variable,
            model=model,
            **{"timeout": 600.0, **http},
        )
        self.budget = budget or Budget(None, None)
        self.api = api
        self.server = server
        self.logprobs = logprobs
        self.reasoning = reasoning

    @functools.cached_property
    def is_vllm(self) -> bool:
        """Whether the server takes vLLM's fields."""
        if self.server != "auto":
            return self.server == "vllm"
        answer = self.endpoint.get("/models")
        models = answer.get("data") if isinstance(answer, dict) else None
        return isinstance(models, list) and any(
            isinstance(m, dict) and m.get("owned_by") == "vllm" for m in models
        )

    def generate(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        on_done: OnDone | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            MissingError: no key or a refused one. InputError: wrong model, URL, or a
                setting the server does not take. WorkError: requests left without an
                answer; those answered went to `on_done` before.
        """
        found: list[list[Completion]] = [[] for _ in prompts]
        outcome = self.generate_open(prompts, sampling, found, on_done)
        outcome.demand_all(
            len(prompts),
            "What was answered is kept where results are stored; run it again to"
            " go on.",
        )
        return found

    def generate_open(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        found: list[list[Completion]],
        on_done: OnDone | None,
    ) -> Outcome:
        """As `generate`, filling `found`; what got no answer is in the outcome and
        raises nothing.
        """
        chat = [self.is_chat(prompt) for prompt in prompts]
        for path, chosen in ((CHAT, True), (COMPLETIONS, False)):
            waiting = [i for i, is_chat in enumerate(chat) if is_chat is chosen]
            # A server that ignores `n` answers with one choice: the missing ones are
            # asked for again.
            for _ in range(sampling.n):
                if waiting:
                    outcome = self._round(
                        path, waiting, prompts, sampling, found, on_done
                    )
                    if outcome.left:
                        return outcome
                waiting = [i for i in waiting if len(found[i]) < sampling.n]
        return Outcome({})

    def _round(
        self,
        path: str,
        waiting: Sequence[int],
        prompts: Sequence[PromptText],
        sampling: Sampling,
        found: list[list[Completion]],
        on_done: OnDone | None,
    ) -> Outcome:
        bodies = []
        seen: Counter[str] = Counter()
        for i in waiting:
            have = len(found[i])
            seed = (
                None
                if sampling.seed is None
                else sampling.seed + have + seen[str(prompts[i])] * _APART
            )
            seen[str(prompts[i])] += 1
            bodies.append(
                self.body(prompts[i], replace(sampling, n=sampling.n - have, seed=seed))
            )

        def done(position: int, completions: list[Completion]) -> None:
            i = waiting[position]
            found[i] += completions[: sampling.n - len(found[i])]
            if on_done and len(found[i]) == sampling.n:
                on_done(i, found[i])

        read = functools.partial(self.read, stop=sampling.stop)
        outcome = self.endpoint.post(path, bodies, read, done, self.budget)
        return Outcome(
            {waiting[p]: why for p, why in outcome.left.items()}, outcome.stopped
        )

    def is_chat(self, prompt: PromptText) -> bool:
        """Whether the prompt goes to chat/completions."""
        if self.api == "completions" and not isinstance(prompt, str):
            raise InputError(
                "the completions API takes text prompts, not messages; use the chat API"
                " for them"
            )
        return self.api == "chat" or not isinstance(prompt, str)

    def body(self, prompt: PromptText, sampling: Sampling) -> dict[str, Any]:
        """The JSON request for one prompt."""
        chat = self.is_chat(prompt)
        messages = (
            [{"role": "user", "content": prompt}]
            if isinstance(prompt, str)
            else [dict(m) for m in prompt]
        )
        body: dict[str, Any] = {
            "model": self.model,
            **({"messages": messages} if chat else {"prompt": prompt}),
        }
        body |= sampling.named("openai")
        # there vLLM refuses more than one
        if sampling.n > 1 and not (self.is_vllm and sampling.temperature == 0):
            body["n"] = sampling.n
            if self.is_vllm:
                body["return_token_ids"] = True  # `usage` counts all n in one sum
        if sampling.seed is not None:
            body["seed"] = _own_seed(sampling, messages)
        if self.is_vllm:
            # What is left out, a vLLM server takes from the model's
            # generation_config.json.
            body |= sampling.named("vllm_server")
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
            # an answer begun in the prompt is gone on with
            if messages[-1]["role"] == "assistant":
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            self._refuse(sampling)
            if not sampling.top_k:
                del body["top_k"]  # most servers know no such field
        if self.logprobs or sampling.logprobs:
            body["logprobs"] = True if chat else 1
        return body

    def _refuse(self, sampling: Sampling) -> None:
        """Options that only vLLM's servers take; stop strings are cut here."""
        foreign = [
            name
            for name in sampling.stated()
            if OPTIONS[name].vllm_server and name != "stop"
        ]
        if foreign:
            raise InputError(
                f"{', '.join(foreign)}: {self.endpoint.host} has no such setting; only"
                " vLLM servers take it"
            )

    def read(self, answer: Any, *, stop: Sequence[str] = ()) -> list[Completion]:
        """The completions of one answer."""
        if not answer.get("choices"):
            raise BadAnswer(f"no choices in it: {answer.get('error', 'empty')}")
        texts = [self._text(choice) for choice in answer["choices"]]
        total = (usage_of(answer.get("usage")) or (0, 0))[1]
        characters = sum(map(len, texts))
        completions = []
        for choice, text in zip(answer["choices"], texts, strict=True):
            logprobs = _logprobs(choice.get("logprobs"))
            share = (
                round(total * len(text) / characters)
                if characters
                else total // len(texts)
            )
            kept = text[: stop_end(text, stop) or None]
            whole = (
                len(kept) < len(text)
                or str(choice.get("finish_reason")).lower() not in CUT
            )
            ids = choice.get("token_ids")
            counted = ids if isinstance(ids, list) and ids else logprobs
            completions.append(
                Completion(
                    kept,
                    "stop" if whole else "length",
                    len(counted) if counted else share,
                    logprobs=logprobs,
                )
            )
        return completions

    def _text(self, choice: Mapping[str, Any]) -> str:
        if isinstance(choice.get("message"), list):
            # NVIDIA's reward models echo the messages and put their scores where
            # log-probs stand.
            return "\n".join(
                f"{token['token']}:{float(token['logprob'])}"
                for token in choice["logprobs"]["content"]
            )
        if (
            not isinstance(choice["finish_reason"], str)
            or choice["finish_reason"] == "error"
        ):
            raise BadAnswer(
                "a choice without an end:"
                f" {choice.get('error', choice['finish_reason'])}"
            )
        if "message" not in choice:
            return _string(choice["text"])
        message = choice["message"]
        text = _string(message.get("content") or message.get("refusal") or "")
        thought = message.get("reasoning_content") or message.get("reasoning")
        return (
            f"<think>\n{_string(thought)}\n</think>\n\n{text}"
            if self.reasoning and thought
            else text
        )

    def loglikelihoods(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[list[float]]:
        """See `Engine.loglikelihoods`; through a completions API that echoes the
        prompt's log-probs, as vLLM's does.

        Raises:
            InputError: for messages, and when the server returns no log-probs of the
                prompt.
        """
        pairs = [(prompt, choice) for prompt, choices in requests for choice in choices]
        bodies = []
        for prompt, choice in pairs:
            if not isinstance(prompt, str):
                raise InputError(
                    "log-likelihoods need text prompts: the chat API returns no"
                    " log-probs of its input"
                )
            fixed = {"max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
            bodies.append({"model": self.model, "prompt": prompt + choice, **fixed})
        sums: dict[int, float] = {}
        refused: list[str] = []

        def done(index: int, answer: Any) -> None:
            try:
                sums[index] = _continuation_logprob(answer, pairs[index][1])
            except (LookupError, TypeError, ValueError, ArithmeticError) as error:
                refused.append(str(error))

        outcome = self.endpoint.post(
            COMPLETIONS, bodies, lambda answer: answer, done, self.budget
        )
        outcome.demand_all(len(bodies), "Run it again.")
        if refused:
            raise InputError(
                f"{self.endpoint.host} returns no usable log-probs of the prompt"
                f" ({refused[0]}): log-likelihoods need a server whose completions API"
                " knows `echo` with `logprobs`, such as vLLM"
            )
        values = iter(sums[i] for i in range(len(pairs)))
        return [[next(values) for _ in choices] for _, choices in requests]

    def close(self) -> None:
        """Nothing is held between calls."""


def _own_seed(sampling: Sampling, messages: Sequence[Mapping[str, Any]]) -> int | None:
    """A seed for this prompt alone: under one for all, servers draw every prompt's
    tokens with the same noise.
    """
    if sampling.seed is None or sampling.temperature == 0:
        return sampling.seed
    return random.Random(f"{sampling.seed} {messages}").getrandbits(31)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise BadAnswer("the text is no string")
    return value


def _logprobs(given: Any) -> tuple[float, ...] | None:
    if not given:
        return None
    values = (
        [token["logprob"] for token in given["content"]]
        if given.get("content")
        else given.get("token_logprobs")
    )
    numbers = tuple(float(v) for v in values or ())
    if not all(map(math.isfinite, numbers)):
        raise BadAnswer("a log-prob is no number")
    return numbers or None


def _continuation_logprob(answer: Any, choice: str) -> float:
    """Sum over the prompt's last tokens that cover `choice`; the one generated token
    behind them is left out.
    """
    given = answer["choices"][0]["logprobs"]
    tokens, values = given["tokens"], given["token_logprobs"]
    counts = usage_of(answer["usage"])
    if counts is None or len(tokens) < counts[0]:
        raise ValueError("fewer tokens than the prompt has")
    text, total = "", 0.0
    for position in range(counts[0] - 1, 0, -1):
        text = tokens[position] + text
        total += float(values[position])
        if text.endswith(choice):
            return total
    raise ValueError("the echoed tokens do not end with the choice")
