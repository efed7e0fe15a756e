"""Prompts and choices as token ids: the same for every engine that runs the model
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from alignkit.engines.base import PromptText
from alignkit.engines.batching import common_prefix
from alignkit.errors import InputError, listing
from alignkit.models import text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptCoder:
    """A model's tokenizer as engines use it; `context` is how many tokens the model
    reads at most.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: str, context: int
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.context = context

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without special ones."""
        if not tokens:
            return ""
        return self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def encode(self, prompts: Sequence[PromptText]) -> list[list[int]]:
        """Token ids of every prompt; a text gets the tokenizer's own start token, a
        chat its template's.
        """
        encoded = [text.prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        if empty := [str(i) for i, ids in enumerate(encoded) if not ids]:
            raise InputError(
                "prompts without a single token cannot be continued: number"
                f" {listing(empty, 5)}"
            )
        return encoded

    def _start(self) -> list[int]:
        """The token that stands for nothing before a text, if the model has one."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return [int(token)]
        return []

    def _alone(self, choice: str) -> list[int]:
        ids = self.tokenizer(choice, add_special_tokens=False)["input_ids"]
        return [*self._start(), *ids]

    def _joined(self, prompt: PromptText, choice: str) -> list[int]:
        """The tokens of a prompt and its choice as one text."""
        if isinstance(prompt, str):
            return text.prompt_ids(self.tokenizer, prompt + choice)
        whole = text.render_chat(self.tokenizer, prompt) + choice
        return list(self.tokenizer(whole, add_special_tokens=False)["input_ids"])

    def check_context(
        self, encoded: Iterable[tuple[int, list[int]]], room: int
    ) -> None:
        """Refuse prompts that leave no room for `room` more tokens: they are never cut
        silently.
        """
        long = [
            f"{i} ({len(ids)} tokens)"
            for i, ids in encoded
            if len(ids) + room > self.context
        ]
        if long:
            raise InputError(
                f"{self.model} reads at most {self.context} tokens; too long with"
                f" {room} to generate: prompt {listing(long, 5)}. Shorten the prompt or"
                " take fewer examples in it."
            )

    def continuations(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[tuple[int, list[int], list[int], list[list[int]]]]:
        """One job per forward pass: (request, its choices, input ids, the tokens scored
        for each choice).

        Prompt and choice are tokenised as one text, as the model would have seen it,
        and parted where that text stops agreeing with the prompt alone.
        """
        jobs = []
        start = self._start()
        prompts = [
            self.encode([prompt])[0] if prompt or not start else start
            for prompt, _ in requests
        ]
        for request, (prompt, choices) in enumerate(requests):
            if not all(choices):
                raise InputError(f"request {request} has an empty choice")
            whole = [
                self._joined(prompt, choice) if prompt else self._alone(choice)
                for choice in choices
            ]
            shared: dict[tuple[int, ...], tuple[list[int], list[list[int]]]] = {}
            for choice, ids in enumerate(whole):
                alone = prompts[request]
                cut = min(common_prefix(alone, ids), len(ids) - 1)
                if cut == 0:
                    raise InputError(
                        f"request {request}: no token of the prompt stands before"
                        f" choice {choices[choice]!r}"
                    )
                numbers, continuations = shared.setdefault(tuple(ids[:-1]), ([], []))
                numbers.append(choice)
                continuations.append(ids[cut:])
            jobs += [
                (request, numbers, list(ids), conts)
                for ids, (numbers, conts) in shared.items()
            ]
        return jobs
