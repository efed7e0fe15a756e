"""Ask a judge model: every verdict is stored as it comes, so that none is lost or paid
for twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignkit.endpoint.costs import Budget, Estimate, estimate, usage_of
from alignkit.engines.base import Completion, Sampling
from alignkit.engines.openai import CHAT, OpenAIEngine
from alignkit.errors import AlignError, InputError
from alignkit.plugins import Registry
from alignkit.run import append_jsonl, read_jsonl
from alignkit.types import Judge, Message

Conversation = Sequence[Message]
# (id, what is asked about it: most often one conversation)
Request = tuple[str, Sequence[Conversation]]
Texts = tuple[str, ...]  # one verdict per conversation
LOCAL_BATCH = 32  # conversations handed to a local judge at once: what a kill can lose


def resolve(
    registry: Registry,
    spec: str,
    base_url: str | None = None,
    price: float | None = None,
) -> Judge:
    """The judge of `--judge NAME` or `NAME:MODEL`, at another URL or price where given.

    A price known for the default model is not taken for another one; a judge without a
    default has one for all.
    """
    name, _, model = spec.partition(":")
    judge: Judge = registry.get("judge", name).value
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
        price=known if price is None else price,
    )


def find_judge(
    spec: str, base_url: str | None = None, price: float | None = None
) -> Judge:
    """As `resolve`, among the kits mounted in this process: for rewards that ask a
    judge.
    """
    from alignkit import kits, plugins

    return resolve(plugins.load(kits.mounted() or kits.find()), spec, base_url, price)


def local_chat(
    model: str,
) -> Callable[[Sequence[Conversation], Mapping[str, Any]], list[str]]:
    """A model in this process that answers conversations: what a local judge's `create`
    returns.
    """
    from alignkit import models
    from alignkit.engines.transformers import TransformersEngine

    engine = TransformersEngine(*models.load(model, for_training=False), name=model)

    def answer(
        conversations: Sequence[Conversation], sampling: Mapping[str, Any]
    ) -> list[str]:
        return [
            found[0].text
            for found in engine.generate(conversations, Sampling(**sampling))
        ]

    return answer


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a call of `JudgeClient.ask` brought.

    `texts`: id -> accepted verdicts. `open`: id -> why there is none yet; the next call
        asks again. `asked`: answers received now; `reused`: ids answered from the
        store. Tokens and dollars are what these requests cost in this call and in
        earlier ones, unreadable verdicts included, by the server's `usage`; dollars are
        None without a price, or when a server did not say what it used.
    """

    texts: dict[str, Texts] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = None


class JudgeClient:
    """A judge with a store of its verdicts.

    Args:
        judge: from `resolve`.
        store: a JSONL file, appended to; verdicts are found again by model, messages
            and sampling. None keeps them in memory.
        max_cost: dollars this client may spend; it stops before exceeding them.
        rounds: how often in one call a verdict that cannot be read is asked for.
        http: `concurrency`, `timeout`, `attempts`, `requests_per_minute`, `backoff` of
            the endpoint.

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
        rounds: int = 2,
        **http: Any,
    ) -> None:
        self.judge = judge
        self.store = store
        self.rounds = rounds
        self.budget = Budget(max_cost, judge.price)
        self.model = judge.model
        self._rows: dict[str, list[dict[str, Any]]] = {}
        if judge.create:
            self._local = judge.create(judge.model)
        else:
            options = {"timeout": 120.0, **http, "api": "chat", "budget": self.budget}
            self.engine = OpenAIEngine(
                judge.model, judge.base_url, judge.key, **options
            )
            self.engine.endpoint.key()
            if not judge.model:
                self._take_served_model()
        if store is not None and store.is_file():
            for row in read_jsonl(store):
                self._rows.setdefault(row["key"], []).append(row)

    def _take_served_model(self) -> None:
        answer: Any = self.engine.endpoint.get("/models")
        try:
            self.model = self.engine.model = self.engine.endpoint.model = str(
                answer["data"][0]["id"]
            )
        except (LookupError, TypeError):
            raise InputError(
                f"judge '{self.judge.name}' names no model and"
                f" {self.engine.endpoint.host} lists none; is the server up? Otherwise"
                f" write --judge {self.judge.name}:MODEL"
            ) from None

    def estimate(
        self,
        requests: Sequence[Request],
        sampling: Mapping[str, Any],
        accept: Callable[[str, Texts], bool],
    ) -> Estimate:
        """What the requests without a stored verdict will cost, before any is sent."""
        call = _Asking(self, requests, sampling, accept, None)
        bodies = [
            {"messages": m, "max_tokens": call.sampling.max_new_tokens}
            for m in call.to_ask().values()
        ]
        return estimate(bodies, self.judge.price)

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
                first.

        Raises:
            MissingError: key refused. InputError: wrong model or URL. WorkError: the
                endpoint is gone, or the cost limit is reached. What was judged before
                is in the store.
        """
        call = _Asking(self, requests, sampling, accept, on_done)
        reused = len(call.texts)
        for _ in range(self.rounds):
            stopped = call.round() if call.pending else None
            if stopped:
                kept = (
                    f"What was judged is kept in {self.store}; run"
                    if self.store
                    else "Run"
                )
                raise type(stopped)(
                    f"{stopped}\n{len(call.pending)} of {len(requests)} judgements are"
                    f" left. {kept} the same command again to judge the rest."
                )
        paid = [row for key in call.messages for row in self._rows.get(key, ())]
        tokens = [
            sum((row["usage"] or (0, 0))[part] for row in paid) for part in (0, 1)
        ]
        counted = self.judge.price == 0 or all(row["usage"] for row in paid)
        dollars = (
            sum(tokens) * self.judge.price / 1e6
            if self.judge.price is not None and counted
            else None
        )
        open_ = {id_: call.why[id_] for id_ in call.pending}
        return Verdicts(
            call.texts, open_, call.asked, reused, tokens[0], tokens[1], dollars
        )

    def key_of(self, conversation: Conversation, sampling: Sampling) -> str:
        """What a verdict is stored under."""
        asked = [self.model, [dict(m) for m in conversation], sampling.record()]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def stored(self, keys: Sequence[str]) -> Texts | None:
        """The newest text under each key, or None when one is missing."""
        if any(key not in self._rows for key in keys):
            return None
        return tuple(self._rows[key][-1]["text"] for key in keys)

    def keep(
        self, key: str, completion: Completion, usage: tuple[int, int] | None
    ) -> None:
        """Store an answer."""
        row: dict[str, Any] = {"key": key, "model": self.model, "text": completion.text}
        row |= {
            "finish_reason": completion.finish_reason,
            "usage": usage,
            "time": round(time.time(), 3),
        }
        self._rows.setdefault(key, []).append(row)
        if self.store is not None:
            append_jsonl(self.store, [row])

    def send(
        self,
        todo: Mapping[str, Conversation],
        sampling: Sampling,
        received: Callable[[str, Completion, tuple[int, int] | None], None],
    ) -> tuple[dict[str, str], AlignError | None]:
        """Ask each conversation once: key -> why it got no answer, and what ended it
        early.
        """
        keys = list(todo)
        if self.judge.create:
            for start in range(0, len(keys), LOCAL_BATCH):
                part = keys[start : start + LOCAL_BATCH]
                for key, text in zip(
                    part,
                    self._local([todo[key] for key in part], sampling.record()),
                    strict=True,
                ):
                    received(key, Completion(text, "stop", 0), None)
            return {}, None
        outcome = self.engine.endpoint.post(
            CHAT,
            [self.engine.body(todo[key], sampling) for key in keys],
            lambda answer: (
                self.engine.read(answer, stop=sampling.stop)[0],
                usage_of(answer.get("usage")),
            ),
            lambda index, value: received(keys[index], *value),
            self.budget,
        )
        return {
            keys[index]: reason for index, reason in outcome.left.items()
        }, outcome.stopped


class _Asking:
    """The state of one call of `ask`."""

    def __init__(
        self,
        client: JudgeClient,
        requests: Sequence[Request],
        sampling: Mapping[str, Any],
        accept: Callable[[str, Texts], bool],
        on_done: Callable[[str, Texts], None] | None,
    ) -> None:
        self.client = client
        self.sampling = Sampling(**sampling)
        self.accept = accept
        self.on_done = on_done
        self.asked = 0
        self.texts: dict[str, Texts] = {}
        self.pending: dict[str, list[str]] = {}  # id -> keys of its conversations
        # key -> conversation: equal ones are asked once
        self.messages: dict[str, Conversation] = {}
        self.why: dict[str, str] = {}
        for id_, conversations in requests:
            keys = [
                client.key_of(conversation, self.sampling)
                for conversation in conversations
            ]
            self.messages.update(zip(keys, conversations, strict=True))
            self.pending[id_] = keys
        for id_ in list(self.pending):
            self.settle(id_)

    def settle(self, id_: str) -> None:
        texts = self.client.stored(self.pending[id_])
        # Whether it can be read is judged anew each time, so that a better parser needs
        # no new payment.
        if texts is not None and self.accept(id_, texts):
            del self.pending[id_]
            self.texts[id_] = texts
            if self.on_done:
                self.on_done(id_, texts)
        elif texts is not None:
            self.why[id_] = (
                f"unreadable verdict: {', '.join(repr(text[:80]) for text in texts)}"
            )

    def to_ask(self) -> dict[str, Conversation]:
        """What is missing; for an unreadable verdict all of its conversations, as any
        may be at fault.
        """
        todo = {}
        for keys in self.pending.values():
            missing = [key for key in keys if self.client.stored([key]) is None]
            todo.update({key: self.messages[key] for key in missing or keys})
        return todo

    def round(self) -> AlignError | None:
        todo = self.to_ask()
        outstanding = set(todo)
        users: dict[str, list[str]] = {}
        for id_, keys in self.pending.items():
            for key in keys:
                users.setdefault(key, []).append(id_)

        def received(
            key: str, completion: Completion, usage: tuple[int, int] | None
        ) -> None:
            self.asked += 1
            self.client.keep(key, completion, usage)
            outstanding.discard(key)
            for id_ in users[key]:
                if id_ in self.pending and outstanding.isdisjoint(self.pending[id_]):
                    self.settle(id_)

        left, stopped = self.client.send(todo, self.sampling, received)
        for key, reason in left.items():
            self.why.update({id_: reason for id_ in users[key] if id_ in self.pending})
        return stopped
