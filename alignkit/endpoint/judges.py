"""Ask a judge model: its verdicts are answers of the ledger, read anew in each call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from alignkit.benchmarks import Judge, JudgeConfig
from alignkit.endpoint import permits
from alignkit.endpoint.costs import Budget, Estimate
from alignkit.endpoint.http import HttpOptions
from alignkit.endpoint.ledger import Answer, Ledger, request_key
from alignkit.endpoint.openai import CHAT, OpenAIClient
from alignkit.endpoint.verdicts import (
    Conversation,
    Questions,
    Request,
    Texts,
    Verdicts,
)
from alignkit.errors import AlignError, InputError
from alignkit.plugins import Registry
from alignkit.sampling import Completion, Sampling

LOCAL_BATCH = 32  # conversations handed to a local judge at once: what a kill can lose
TIMEOUT = 120.0  # seconds for one verdict, where nothing else is said


def resolve(
    registry: Registry,
    spec: str,
    base_url: str | None = None,
    price: float | None = None,
    key: str | None = None,
) -> Judge:
    """The judge of `--judge NAME` or `NAME:MODEL`, at another URL or price, or with the
    key of another variable, where given (an empty one sends none).

    A price known for the default model is not taken for another one; a judge without a
    default has one for all.
    """
    name, _, model = spec.partition(":")
    judge: Judge = registry.get("judge", name).value
    permits.declare(judge)
    if base_url and judge.create:
        raise InputError(
            f"judge '{name}' runs in this process: it has no base URL; judge 'vllm'"
            " takes one"
        )
    known = judge.price if not model or judge.model in ("", model) else None
    return replace(
        judge,
        model=model or judge.model,
        base_url=base_url or judge.base_url,
        key=judge.key if key is None else key or None,
        price=known if price is None else price,
    )


def find_judge(spec: str, base_url: str | None = None, **more: Any) -> Judge:
    """As `resolve`, among the kits mounted in this process: for rewards that ask a
    judge.
    """
    from alignkit import kits, plugins

    registry = plugins.load(kits.mounted() or kits.find())
    return resolve(registry, spec, base_url, **more)


def default_judge(registry: Registry) -> str:
    """The name of the first judge whose key is set, or else of the first that has one."""
    hosted = {
        name: key
        for name in registry.names("judge")
        if (key := registry.get("judge", name).value.key)
    }
    ready = (name for name, key in hosted.items() if os.environ.get(key, "").strip())
    return next(ready, next(iter(hosted)))


class JudgeClient:
    """A judge with a ledger of its verdicts.

    Args:
        judge: from `resolve`.
        store: the ledger's file; verdicts are found again by model, messages and
            sampling. None keeps them in memory.
        max_cost: dollars this client may spend; it stops before exceeding them.
        max_new_tokens: of an answer; None as the eval asks.
        config: what is asked instead of the eval's own questions, and how.
        rounds: how often in one call a verdict that cannot be read is asked for.
        http: of the connection.

    Raises:
        MissingError: when the judge's key is not set. InputError: for a bad URL, or a
            limit without a price.
    """

    def __init__(
        self,
        judge: Judge,
        store: Path | None,
        *,
        max_cost: float | None = None,
        max_new_tokens: int | None = None,
        config: JudgeConfig | None = None,
        rounds: int = 2,
        **http: Unpack[HttpOptions],
    ) -> None:
        self.judge = judge
        self.rounds = rounds
        self.max_new_tokens = max_new_tokens
        self.config = config
        self.fields = dict(config.fields) if config else {}
        self.model = judge.model
        self.ledger = Ledger(store, Budget(max_cost, judge.price))
        if judge.create:
            if self.fields:
                raise InputError(
                    f"judge '{judge.name}' runs in this process: it has no"
                    f" {', '.join(self.fields)}, which --judge-config asks for"
                )
            self._local = judge.create(judge.model)
        else:
            self.client = self._connect(http)

    def _connect(self, http: HttpOptions) -> OpenAIClient:
        http.setdefault("timeout", TIMEOUT)
        client = OpenAIClient(
            self.judge.model,
            self.judge.base_url,
            self.judge.key,
            api="chat",
            settles=True,
            read_choice=(
                (self.config and self.config.read_choice) or self.judge.read_choice
            ),
            **http,
        )
        client.endpoint.key()
        if not self.judge.model:
            try:
                client.take_served_model()
            except (LookupError, TypeError):
                name = self.judge.name
                raise InputError(
                    f"judge '{name}' names no model and {client.endpoint.host} lists"
                    f" none; is the server up? Otherwise write --judge {name}:MODEL"
                ) from None
            self.model = client.model
        return client

    def estimate(
        self,
        requests: Sequence[Request],
        sampling: Mapping[str, Any],
        accept: Callable[[str, Texts], bool],
    ) -> Estimate:
        """What the requests without a stored verdict will cost, before any is sent."""
        drawn = Sampling(**sampling)
        questions = self._questions(requests, drawn, accept)
        return self.ledger.estimate(
            [
                {"messages": conversation, "max_tokens": drawn.max_new_tokens}
                for conversation in questions.to_ask().values()
            ]
        )

    def ask(
        self,
        requests: Sequence[Request],
        sampling: Mapping[str, Any],
        accept: Callable[[str, Texts], bool],
        on_done: Callable[[str, Texts], None] | None = None,
    ) -> Verdicts:
        """Verdicts for each (id, conversations).

        Args:
            sampling: fields of `Sampling`.
            accept: whether the texts for an id can be read as a verdict. Those that
                cannot are stored, as they are paid for, but the id stays open.
            on_done: called with (id, texts) for each accepted verdict, stored ones
                first. What the server refuses for good is in no verdict, and is not
                asked again.

        Raises:
            MissingError: key refused. InputError: wrong model or URL. WorkError: the
                endpoint is gone, or the cost limit is reached. What was judged before
                is in the ledger.
        """
        drawn = Sampling(**sampling)
        questions = self._questions(requests, drawn, accept, on_done)
        reused = len(questions.texts)
        asked = 0
        for _ in range(self.rounds):
            if not questions.to_ask():
                break
            answered, stopped = self._round(questions, drawn)
            asked += answered
            if stopped:
                left = f"{len(questions.open)} of {len(requests)}"
                raise type(stopped)(
                    f"{stopped}\n{left} judgements are left. {self._kept()} the same"
                    " command again to judge the rest."
                )
        return Verdicts(
            questions.texts,
            {id_: questions.why[id_] for id_ in questions.open},
            questions.refused,
            asked,
            reused,
            *self.ledger.spent(questions.conversations),
        )

    def key_of(self, conversation: Conversation, sampling: Sampling) -> str:
        """What a verdict is found under."""
        messages = [dict(message) for message in conversation]
        fields = [self.fields] if self.fields else []
        return request_key(self.model, messages, sampling.record(), *fields)

    def _questions(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        accept: Callable[[str, Texts], bool],
        on_done: Callable[[str, Texts], None] | None = None,
    ) -> Questions:
        return Questions(
            requests,
            lambda conversation: self.key_of(conversation, sampling),
            self._newest,
            sampling.temperature == 0,
            accept,
            on_done,
        )

    def _newest(self, key: str) -> Answer | None:
        answers = self.ledger.answers(key)
        return answers[-1] if answers else None

    @property
    def notices(self) -> list[str]:
        """What of the requests the server did not take as they were."""
        return [] if self.judge.create else self.client.endpoint.adaptation.notices

    def _kept(self) -> str:
        if self.ledger.path is None:
            return "Run"
        return f"What was judged is kept in {self.ledger.path}; run"

    def _round(
        self, questions: Questions, sampling: Sampling
    ) -> tuple[int, AlignError | None]:
        """Ask each open conversation once; the number of answers, and what ended it
        early.
        """
        todo = questions.to_ask()
        outstanding = set(todo)

        def received(answer: Answer) -> None:
            questions.answered(answer.key, outstanding)

        if self.judge.create:
            self._ask_here(todo, sampling, received)
            return len(todo), None
        outcome = self.ledger.ask(
            self.client,
            CHAT,
            {k: self.client.body(todo[k], sampling) | self.fields for k in todo},
            sampling.stop,
            received,
        )
        keys = list(todo)
        for index, why in outcome.left.items():
            questions.failed(keys[index], why)
        settled = len(outcome.left) + len(outcome.refused)
        return len(todo) - settled, outcome.stopped

    def _ask_here(
        self,
        todo: Mapping[str, Conversation],
        sampling: Sampling,
        received: Callable[[Answer], None],
    ) -> None:
        """Ask the judge in this process."""
        keys = list(todo)
        for start in range(0, len(keys), LOCAL_BATCH):
            part = keys[start : start + LOCAL_BATCH]
            texts = self._local([todo[key] for key in part], sampling.record())
            for key, text in zip(part, texts, strict=True):
                completion = Completion(text, "stop", 0)
                received(
                    self.ledger.keep(
                        key, sampling.max_new_tokens, self.model, completion
                    )
                )
