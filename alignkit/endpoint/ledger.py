"""The ledger of paid answers: each is written as it comes and found again by its
request, so that none is lost or paid for twice.

A file of it is append-only JSONL. `judgements.jsonl` and `<out>.answers.jsonl` are such
files; those that alignkit 0.1 wrote are read too.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignkit.endpoint.costs import Budget, Estimate, Usage, estimate
from alignkit.endpoint.http import Outcome
from alignkit.endpoint.openai import OpenAIClient
from alignkit.errors import InputError
from alignkit.run import append_rows, lock, read_jsonl
from alignkit.sampling import REFUSED, Completion

PATIENCE = 60.0  # seconds to wait for other processes that write their answers


@dataclass(frozen=True, slots=True)
class Answer:
    """A paid answer, or a refusal in its place (`finish_reason` refused, the words as
    text). What a file of 0.1 does not say is None.

    `usage`: (input, output) tokens by the server's own count. `time`: seconds of the
        epoch. `adapted`: what of the request the server did not take as it was.
    """

    key: str
    model: str | None
    text: str
    finish_reason: str
    tokens: int | None
    usage: Usage | None
    max_new_tokens: int | None
    time: float | None
    adapted: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the model came to an end by itself and said something."""
        return self.finish_reason == "stop" and bool(self.text.strip())


def request_key(*asked: object) -> str:
    """What an answer is found under: 64 characters, as batch files allow."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Ledger:
    """Paid answers by request.

    Args:
        path: the file, read now and appended to; None keeps the answers in memory.
        budget: what may be spent, and at which price.

    Raises:
        InputError: a row of the file is no paid answer.
    """

    def __init__(self, path: Path | None, budget: Budget) -> None:
        self.path = path
        self.budget = budget
        self._answers: dict[str, list[Answer]] = {}
        if path is not None and path.is_file():
            for number, row in enumerate(read_jsonl(path), 1):
                self._take(_read_row(row, f"{path}:{number}"))

    def answers(self, key: str) -> Sequence[Answer]:
        """All answers to a request, oldest first."""
        return self._answers.get(key, ())

    def estimate(self, bodies: Sequence[Mapping[str, Any]]) -> Estimate:
        """What these requests will cost, before any is sent."""
        return estimate(bodies, self.budget.price)

    def ask(
        self,
        client: OpenAIClient,
        path: str,
        bodies: Mapping[str, Mapping[str, Any]],
        stop: Sequence[str],
        on_answer: Callable[[Answer], None],
    ) -> Outcome:
        """Post the bodies, by their keys, within the budget; each answer is written
        before `on_answer` sees it.
        """
        keys = list(bodies)

        def kept(index: int, completion: Completion, usage: Usage | None) -> None:
            key, limit = keys[index], bodies[keys[index]]["max_tokens"]
            adapted = client.endpoint.adaptation.notices
            on_answer(self.keep(key, limit, client.model, completion, usage, adapted))

        return client.endpoint.post(
            path,
            list(bodies.values()),
            lambda answer: client.read_one(answer, stop),
            lambda index, answer: kept(index, *answer),
            self.budget,
            lambda index, words: kept(index, Completion(words, REFUSED, 0), (0, 0)),
        )

    def keep(
        self,
        key: str,
        max_new_tokens: int,
        model: str,
        completion: Completion,
        usage: Usage | None = None,
        adapted: Sequence[str] = (),
    ) -> Answer:
        """Write an answer."""
        answer = Answer(
            key,
            model,
            completion.text,
            completion.finish_reason,
            completion.tokens,
            usage,
            max_new_tokens,
            round(time.time(), 3),
            tuple(adapted),
        )
        self._take(answer)
        if self.path is not None:
            # Another process may be in the midst of its line, which is not a torn one.
            with lock(self.path, patience=PATIENCE):
                append_rows(self.path, [asdict(answer)])
        return answer

    def spent(self, keys: Iterable[str]) -> tuple[int, int, float | None]:
        """(input tokens, output tokens, dollars) of all answers to these requests.

        Dollars are None without a price, or when a server did not say what it used.
        """
        usages = [answer.usage for key in keys for answer in self.answers(key)]
        known = [usage for usage in usages if usage is not None]
        tokens_in = sum(usage[0] for usage in known)
        tokens_out = sum(usage[1] for usage in known)
        price = self.budget.price
        if price is None or (price > 0 and len(known) < len(usages)):
            return tokens_in, tokens_out, None
        return tokens_in, tokens_out, (tokens_in + tokens_out) * price / 1e6

    def _take(self, answer: Answer) -> None:
        self._answers.setdefault(answer.key, []).append(answer)


def _read_row(row: Mapping[str, Any], where: str) -> Answer:
    # A teacher's answer was called its response.
    text = row.get("text", row.get("response"))
    usage = row.get("usage")
    strings = (row.get("key"), text, row.get("finish_reason"))
    if not all(isinstance(value, str) for value in strings):
        raise InputError(
            f"{where}: no answer: a ledger's rows have `key`, `text` and"
            f" `finish_reason`; this one has {', '.join(sorted(row)) or 'nothing'}"
        )
    return Answer(
        row["key"],
        row.get("model"),
        text,
        row["finish_reason"],
        row.get("tokens"),
        (usage[0], usage[1]) if usage else None,
        row.get("max_new_tokens"),
        row.get("time"),
        tuple(row.get("adapted") or ()),
    )
