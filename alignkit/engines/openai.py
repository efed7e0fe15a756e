"""Any OpenAI-compatible endpoint as an engine."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from alignkit.endpoint.answers import continuation_logprob
from alignkit.endpoint.http import Outcome
from alignkit.endpoint.openai import CHAT, COMPLETIONS, OpenAIClient
from alignkit.engines.base import Completion, Likelihood, OnDone, PromptText, Sampling
from alignkit.errors import InputError
from alignkit.sampling import REFUSED

_APART = 1_000_003  # between the seeds of a prompt that is asked twice


class OpenAIEngine(OpenAIClient):
    """Text from an OpenAI-compatible server; the arguments are those of the client."""

    name = "openai"

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
        completions: list[list[Completion]] = [[] for _ in prompts]
        outcome = self.generate_open(prompts, sampling, completions, on_done)
        outcome.demand_all(
            len(prompts),
            "What was answered is kept where results are stored; run it again to"
            " go on.",
        )
        return completions

    def generate_open(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        completions: list[list[Completion]],
        on_done: OnDone | None,
    ) -> Outcome:
        """As `generate`, filling `completions`; what got no answer is in the outcome
        and raises nothing.
        """
        paths = [self.path(prompt) for prompt in prompts]
        for path in (CHAT, COMPLETIONS):
            waiting = [i for i, own in enumerate(paths) if own == path]
            # A server that ignores `n` answers with one choice: the missing ones are
            # asked for again.
            for _ in range(sampling.n):
                if waiting:
                    outcome = self._round(
                        path, waiting, prompts, sampling, completions, on_done
                    )
                    if outcome.left:
                        return outcome
                waiting = [i for i in waiting if len(completions[i]) < sampling.n]
        return Outcome({})

    def _round(
        self,
        path: str,
        waiting: Sequence[int],
        prompts: Sequence[PromptText],
        sampling: Sampling,
        completions: list[list[Completion]],
        on_done: OnDone | None,
    ) -> Outcome:
        bodies = []
        seen: Counter[str] = Counter()
        for i in waiting:
            have = len(completions[i])
            seed = sampling.seed
            if seed is not None:
                seed += have + seen[str(prompts[i])] * _APART
            seen[str(prompts[i])] += 1
            bodies.append(
                self.body(prompts[i], replace(sampling, n=sampling.n - have, seed=seed))
            )

        def done(position: int, choices: list[Completion]) -> None:
            i = waiting[position]
            completions[i] += choices[: sampling.n - len(completions[i])]
            if on_done and len(completions[i]) == sampling.n:
                on_done(i, completions[i])

        def refused(position: int, words: str) -> None:
            done(position, [Completion(words, REFUSED, 0)] * sampling.n)

        read = functools.partial(self.read, stop=sampling.stop)
        outcome = self.endpoint.post(path, bodies, read, done, self.budget, refused)
        return Outcome(
            {waiting[p]: why for p, why in outcome.left.items()},
            outcome.stopped,
            {waiting[p]: words for p, words in outcome.refused.items()},
        )

    def loglikelihoods(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[list[Likelihood]]:
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
        sums: dict[int, Likelihood] = {}
        refused: list[str] = []

        def done(index: int, answer: object) -> None:
            try:
                told = continuation_logprob(answer, pairs[index][1])
                sums[index] = Likelihood(*told)
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
