"""Answers of a teacher as training rows: all are written as they come, only finished
ones become rows.

The ledger `<out>.answers.jsonl` beside the result holds all answers, so that a call
that was killed, or that ran into its cost limit, goes on where it was. A provider's
batch files work on the same ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignkit.data import render
from alignkit.endpoint.costs import Estimate
from alignkit.endpoint.ledger import Answer, Ledger, request_key
from alignkit.endpoint.openai import CHAT, COMPLETIONS, OpenAIClient
from alignkit.errors import AlignError, InputError, WorkError
from alignkit.run import atomic_write, write_rows
from alignkit.sampling import PromptText, Sampling
from alignkit.types import Prompt

# What reading an answer of the wrong shape may raise.
WRONG_SHAPE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
# columns about a response
GRADES = ("reward", "rewards", "status", "parts", "stage", "explanation", "correct")


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted."""

    key: str
    prompt: PromptText
    row: Mapping[str, Any]
    sample: int


class Distillation:
    """A teacher's answers to rows.

    Args:
        prompt: renders a row for the teacher; None takes its `prompt` column.
        sampling: of the teacher; sample k has the seed `seed + k`.
        samples: answers per row.
        out: the JSONL file to make: the row's columns with `prompt`, `response`,
            `finish_reason`, `tokens`, `sample` and `teacher`.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        prompt: Prompt | None,
        client: OpenAIClient,
        sampling: Sampling,
        samples: int,
        out: Path,
    ) -> None:
        self.client = client
        self.sampling = replace(sampling, n=1)
        self.out = out
        name = f"{out.name.removesuffix('.jsonl')}.answers.jsonl"
        self.ledger = Ledger(out.with_name(name), client.budget)
        asks: dict[str, Ask] = {}
        for row in rows:
            rendered = render(prompt, row)
            for sample in range(samples):
                key = self._key(rendered, sample)
                asks.setdefault(key, Ask(key, rendered, row, sample))
        self.asks = list(asks.values())
        # the same prompt again: asked and written once
        self.repeated = len(rows) * samples - len(asks)

    def todo(self) -> list[Ask]:
        """What has no finished answer yet; one that was cut is asked for again only
        with a higher token limit.
        """
        return [ask for ask in self.asks if self._is_open(ask)]

    def _is_open(self, ask: Ask) -> bool:
        answer = self.answer(ask)
        if answer is None or answer.finished:
            return answer is None
        return (answer.max_new_tokens or 0) < self.sampling.max_new_tokens

    def answer(self, ask: Ask) -> Answer | None:
        """The first finished answer, or else the newest."""
        answers = self.ledger.answers(ask.key)
        newest = answers[-1] if answers else None
        return next((answer for answer in answers if answer.finished), newest)

    def estimate(self) -> Estimate:
        """What is still to be asked will cost this."""
        return self.ledger.estimate([self._body(ask) for ask in self.todo()])

    def run(self, on_done: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Ask the teacher for what is missing, then write `out`; `on_done` gets the
        number of answers so far.

        Raises:
            MissingError: no key or a refused one. InputError: wrong model or URL.
                WorkError: the endpoint is gone, a request failed for good, or the cost
                limit is reached; `out` then holds what is there.
        """
        try:
            todo = self.todo()
            for path in (CHAT, COMPLETIONS):
                asks = [ask for ask in todo if self.client.path(ask.prompt) == path]
                if asks:
                    self._post(path, asks, on_done)
        except AlignError:
            self.write()
            raise
        return self.write()

    def _post(
        self, path: str, asks: Sequence[Ask], on_done: Callable[[int], None] | None
    ) -> None:
        answered = sum(self.answer(ask) is not None for ask in self.asks)

        def received(answer: Answer) -> None:
            nonlocal answered
            answered += len(self.ledger.answers(answer.key)) == 1
            if on_done:
                on_done(answered)

        outcome = self.ledger.ask(
            self.client,
            path,
            {ask.key: self._body(ask) for ask in asks},
            self.sampling.stop,
            received,
        )
        outcome.demand_all(
            len(asks),
            f"All answers so far are in {self.ledger.path}: run the same command again"
            " to go on.",
        )

    def write_requests(self, path: Path) -> int:
        """Write a provider's batch file of what is still to be asked; returns the
        number of requests.

        Raises:
            WorkError: the whole batch may cost more than the limit. Nothing stops it
                later, so it is not written.
        """
        asks = self.todo()
        budget = self.ledger.budget
        if not all(budget.reserve(self._body(ask)) for ask in asks):
            raise WorkError(
                f"the batch may cost more than the limit of ${budget.limit:.4f}:"
                f" {self.estimate()}; take fewer rows or shorter answers, or raise the"
                " limit"
            )
        lines = []
        for ask in asks:
            request = {
                "custom_id": ask.key,
                "method": "POST",
                "url": "/v1" + self.client.path(ask.prompt),
                "body": self._body(ask),
            }
            lines.append(json.dumps(request) + "\n")
        atomic_write(path, "".join(lines))
        return len(asks)

    def read_results(self, path: Path) -> dict[str, int]:
        """Take the answers of a provider's result file; counts of `taken`, `failed`,
        `unreadable` and `unknown`.

        Raises:
            InputError: the file cannot be read at all.
        """
        wanted = {ask.key for ask in self.todo()}
        known = {ask.key for ask in self.asks}
        counts = dict.fromkeys(("taken", "failed", "unreadable", "unknown"), 0)
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        for line in filter(bytes.strip, lines):
            try:
                row = json.loads(line)
                key = row["custom_id"]
                # OpenAI wraps the answer with its status; others give the bare answer.
                wrapped = row.get("response") or {}
                body = wrapped.get("body", wrapped)
                if (
                    row.get("error")
                    or wrapped.get("status_code", 200) != 200
                    or not body
                ):
                    counts["failed"] += 1
                elif key not in known:
                    counts["unknown"] += 1
                else:
                    completion, usage = self.client.read_one(body, self.sampling.stop)
                    counts["taken"] += 1
                    if key in wanted:
                        limit = self.sampling.max_new_tokens
                        model = self.client.model
                        self.ledger.keep(key, limit, model, completion, usage)
                        self.ledger.budget.count(usage)
            except (*WRONG_SHAPE, RecursionError):
                counts["unreadable"] += 1
        return counts

    def write(self) -> dict[str, Any]:
        """Write the finished answers to `out`, in the order of the rows; returns what
        was counted.
        """
        rows = []
        answered = 0
        for ask in self.asks:
            answer = self.answer(ask)
            if answer is None:
                continue
            answered += 1
            if answer.finished:
                rows.append(self._row(ask, answer))
        write_rows(self.out, rows)
        budget = self.ledger.budget
        return {
            "out": str(self.out),
            "asked": len(self.asks),
            "repeated": self.repeated,
            "finished": len(rows),
            "unfinished": answered - len(rows),
            "left": len(self.asks) - answered,
            "input_tokens": budget.input_tokens,
            "output_tokens": budget.output_tokens,
            "dollars": budget.dollars,
        }

    def _row(self, ask: Ask, answer: Answer) -> dict[str, Any]:
        return {
            **_ungraded(ask.row),
            "prompt": ask.prompt,
            "response": answer.text,
            "finish_reason": answer.finish_reason,
            "tokens": answer.tokens,
            "sample": ask.sample,
            "teacher": self.client.model,
        }

    def _body(self, ask: Ask) -> dict[str, Any]:
        seed = None if self.sampling.seed is None else self.sampling.seed + ask.sample
        return self.client.body(ask.prompt, replace(self.sampling, seed=seed))

    def _key(self, prompt: PromptText, sample: int) -> str:
        # Without the token limit: a finished answer stays one when the limit is raised.
        drawn = self.sampling.record() | {"max_new_tokens": None}
        text = prompt if isinstance(prompt, str) else [dict(m) for m in prompt]
        chat = self.client.is_chat(prompt)
        return request_key(
            self.client.model, text, drawn, chat, self.client.reasoning, sample
        )


def _ungraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without the grades of the response that the teacher's takes the place of."""
    return {k: v for k, v in row.items() if "response" not in row or k not in GRADES}
