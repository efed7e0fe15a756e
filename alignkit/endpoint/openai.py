"""A client of OpenAI-compatible servers: chat for messages, completions for text."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from alignkit.endpoint import answers
from alignkit.endpoint.answers import ReadChoice
from alignkit.endpoint.costs import Budget, Usage, usage_of
from alignkit.endpoint.http import Endpoint, HttpOptions
from alignkit.errors import InputError
from alignkit.sampling import OPTIONS, Completion, PromptText, Sampling

CHAT = "/chat/completions"
COMPLETIONS = "/completions"
TIMEOUT = 600.0  # seconds for one answer, where nothing else is said


class OpenAIClient:
    """Requests to a model behind an OpenAI-compatible server, and their answers.

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
        settles: what the server refused or filtered is no text, but settled as refused.
        reasoning: where the server returns the reasoning apart, put it back in front as
            `<think>…</think>`.
        budget: price and limit; counts what was used.
        read_choice: reads the choices of a server that writes some in its own way.
        http: of the connection.

    Stop strings stay in the text, as with every engine. vLLM does that itself. Other
    servers remove them without saying whether one was there, so they are not sent: the
    text is generated to its end and cut here after the first stop string, which costs
    the tokens behind it. `tokens` counts those too. Where a server counts n completions
    in one sum, each gets its share by characters.
    """

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
        settles: bool = False,
        budget: Budget | None = None,
        read_choice: ReadChoice | None = None,
        **http: Unpack[HttpOptions],
    ) -> None:
        self.model = model
        http.setdefault("timeout", TIMEOUT)
        self.endpoint = Endpoint(
            base_url, key_variable=key_variable, model=model, **http
        )
        self.budget = budget or Budget(None, None)
        self.api = api
        self.server = server
        self.logprobs = logprobs
        self.reasoning = reasoning
        self.settles = settles
        self.read_choice = read_choice

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

    def take_served_model(self) -> None:
        """Ask for the model that the server lists first.

        Raises:
            LookupError, TypeError: it lists none.
        """
        answer: Any = self.endpoint.get("/models")
        self.model = self.endpoint.model = str(answer["data"][0]["id"])

    def is_chat(self, prompt: PromptText) -> bool:
        """Whether the prompt goes to chat/completions."""
        if self.api == "completions" and not isinstance(prompt, str):
            raise InputError(
                "the completions API takes text prompts, not messages; use the chat API"
                " for them"
            )
        return self.api == "chat" or not isinstance(prompt, str)

    def path(self, prompt: PromptText) -> str:
        """Of the API that the prompt goes to."""
        return CHAT if self.is_chat(prompt) else COMPLETIONS

    def body(self, prompt: PromptText, sampling: Sampling) -> dict[str, Any]:
        """The JSON request for one prompt."""
        if isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
        else:
            messages = [dict(message) for message in prompt]
        chat = self.is_chat(prompt)
        body: dict[str, Any] = {"model": self.model, **sampling.named("openai")}
        body |= {"messages": messages} if chat else {"prompt": prompt}
        if sampling.seed is not None:
            body["seed"] = _own_seed(sampling.seed, sampling.temperature, messages)
        if self.logprobs or sampling.logprobs:
            body["logprobs"] = True if chat else 1
        if self.is_vllm:
            return body | _fields_of_vllm(sampling, messages)
        self._refuse(sampling)
        if not sampling.top_k:
            del body["top_k"]  # most servers know no such field
        if sampling.n > 1:
            body["n"] = sampling.n
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
        """The completions of one answer.

        Raises:
            BadAnswer, LookupError, TypeError, AttributeError: one of another shape.
        """
        return answers.completions(answer, self._text, stop)

    def read_one(
        self, answer: Any, stop: Sequence[str]
    ) -> tuple[Completion, Usage | None]:
        """The first completion of one answer, and the tokens that were paid for."""
        return self.read(answer, stop=stop)[0], usage_of(answer.get("usage"))

    def _text(self, choice: Mapping[str, Any]) -> str:
        text = self.read_choice(choice) if self.read_choice else None
        if text is not None:
            return text
        return answers.text_of(choice, reasoning=self.reasoning, settles=self.settles)


def _fields_of_vllm(
    sampling: Sampling, messages: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    # What is left out, a vLLM server takes from the model's generation_config.json.
    fields = sampling.named("vllm_server")
    fields |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
    # of greedy ones it refuses more than one
    if sampling.n > 1 and sampling.temperature > 0:
        # `usage` counts all n in one sum
        fields |= {"n": sampling.n, "return_token_ids": True}
    # an answer begun in the prompt is gone on with
    if messages[-1]["role"] == "assistant":
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return fields


def _own_seed(
    seed: int, temperature: float, messages: Sequence[Mapping[str, str]]
) -> int:
    """A seed for this prompt alone: under one for all, servers draw every prompt's
    tokens with the same noise.
    """
    if temperature == 0:
        return seed
    return random.Random(f"{seed} {messages}").getrandbits(31)
