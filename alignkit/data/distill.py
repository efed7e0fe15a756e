"""Answers of a teacher as training rows: every answer is stored as it comes, only
finished ones are kept.

The file `<out>.answers.jsonl` beside the result holds all answers, so that a call that
was killed, or that ran into its cost limit, goes on where it was. A provider's batch
files work on the same store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignkit.data import render
from alignkit.endpoint.costs import Estimate, estimate, usage_of
from alignkit.engines.base import Completion, PromptText, Sampling
from alignkit.engines.openai import CHAT, COMPLETIONS, OpenAIEngine
from alignkit.errors import AlignError, InputError, WorkError
from alignkit.run import append_jsonl, atomic_write, read_jsonl
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
        engine: OpenAIEngine,
        sampling: Sampling,
        samples: int,
        out: Path,
    ) -> None:
        self.engine = engine
        self.sampling = replace(sampling, n=1)
        self.out = out
        self.store = out.with_name(f"{out.name.removesuffix('.jsonl')}.answers.jsonl")
        asks: dict[str, Ask] = {}
        for row in rows:
            rendered = render(prompt, row)
            for sample in range(samples):
                key = self._key(rendered, sample)
                asks.setdefault(key, Ask(key, rendered, row, sample))
        self.asks = list(asks.values())
        # the same prompt again: asked and written once
        self.repeated = len(rows) * samples - len(asks)
        self.answers: dict[str, dict[str, Any]] = {}
        for number, row in enumerate(
            read_jsonl(self.store) if self.store.is_file() else (), 1
        ):
            if lacking := {
                "key",
                "response",
                "finish_reason",
                "tokens",
                "max_new_tokens",
            } - set(row):
                raise InputError(
                    f"{self.store}:{number}: no answer of a teacher: it lacks"
                    f" {', '.join(sorted(lacking))}"
                )
            self._take(row)

    def todo(self) -> list[Ask]:
        """What has no finished answer yet; one that was cut is asked for again only
        with a higher token limit.
        """
        limit = self.sampling.max_new_tokens
        return [
            ask
            for ask in self.asks
            if (row := self.answers.get(ask.key)) is None
            or (not _finished(row) and row["max_new_tokens"] < limit)
        ]

    def estimate(self) -> Estimate:
        """What is still to be asked will cost this."""
        return estimate(
            [self._body(ask) for ask in self.todo()], self.engine.budget.price
        )

    def run(self, on_done: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Ask the teacher for what is missing, then write `out`; `on_done` gets the
        number of answers so far.

        Raises:
            MissingError: no key or a refused one. InputError: wrong model or URL.
                WorkError: the endpoint is gone, a request failed for good, or the cost
                limit is reached; `out` then holds what is there.
        """
        try:
            for path, chat in ((CHAT, True), (COMPLETIONS, False)):
                asks = [
                    ask
                    for ask in self.todo()
                    if self.engine.is_chat(ask.prompt) is chat
                ]
                if asks:
                    self._post(path, asks, on_done)
        except AlignError:
            self.write()
            raise
        return self.write()

    def _post(
        self, path: str, asks: Sequence[Ask], on_done: Callable[[int], None] | None
    ) -> None:
        def done(index: int, answer: tuple[Completion, Any]) -> None:
            self._keep(asks[index].key, *answer)
            if on_done:
                on_done(len(self.answers))

        outcome = self.engine.endpoint.post(
            path,
            [self._body(ask) for ask in asks],
            self._read,
            done,
            self.engine.budget,
        )
        outcome.demand_all(
            len(asks),
            f"All answers so far are in {self.store}: run the same command again to"
            " go on.",
        )

    def write_requests(self, path: Path) -> int:
        """Write a provider's batch file of what is still to be asked; returns the
        number of requests.

        Raises:
            WorkError: the whole batch may cost more than the limit. Nothing stops it
                later, so it is not written.
        """
        asks = self.todo()
        if not all(self.engine.budget.reserve(self._body(ask)) for ask in asks):
            raise WorkError(
                "the batch may cost more than the limit of"
                f" ${self.engine.budget.limit:.4f}: {self.estimate()}; take fewer rows"
                " or shorter answers, or raise the limit"
            )
        lines = []
        for ask in asks:
            url = "/v1" + (CHAT if self.engine.is_chat(ask.prompt) else COMPLETIONS)
            request = {
                "custom_id": ask.key,
                "method": "POST",
                "url": url,
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
                # OpenAI wraps the answer with its status; Fireworks and others give the
                # bare answer.
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
                    answer = self._read(body)
                    counts["taken"] += 1
                    if key in wanted:
                        self._keep(key, *answer)
                        self.engine.budget.count(answer[1])
            except (*WRONG_SHAPE, RecursionError):
                counts["unreadable"] += 1
        return counts

    def write(self) -> dict[str, Any]:
        """Write the finished answers to `out`, in the order of the rows; returns what
        was counted.
        """
        lines = []
        finished = 0
        for ask in self.asks:
            answer = self.answers.get(ask.key)
            if answer is None or not _finished(answer):
                continue
            finished += 1
            made = {
                name: answer[name] for name in ("response", "finish_reason", "tokens")
            }
            row = {
                **_ungraded(ask.row),
                "prompt": ask.prompt,
                **made,
                "sample": ask.sample,
                "teacher": self.engine.model,
            }
            lines.append(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        atomic_write(self.out, "".join(lines).encode("utf-8", "backslashreplace"))
        answered = [
            self.answers[ask.key] for ask in self.asks if ask.key in self.answers
        ]
        return {
            "out": str(self.out),
            "asked": len(self.asks),
            "repeated": self.repeated,
            "finished": finished,
            "unfinished": len(answered) - finished,
            "left": len(self.asks) - len(answered),
            "input_tokens": self.engine.budget.input_tokens,
            "output_tokens": self.engine.budget.output_tokens,
            "dollars": self.engine.budget.dollars,
        }

    def _body(self, ask: Ask) -> dict[str, Any]:
        seed = None if self.sampling.seed is None else self.sampling.seed + ask.sample
        return self.engine.body(ask.prompt, replace(self.sampling, seed=seed))

    def _read(self, answer: Any) -> tuple[Completion, tuple[int, int] | None]:
        return self.engine.read(answer, stop=self.sampling.stop)[0], usage_of(
            answer.get("usage")
        )

    def _keep(
        self, key: str, completion: Completion, usage: tuple[int, int] | None
    ) -> None:
        row: dict[str, Any] = {
            "key": key,
            "response": completion.text,
            "finish_reason": completion.finish_reason,
        }
        row |= {
            "tokens": completion.tokens,
            "usage": usage,
            "max_new_tokens": self.sampling.max_new_tokens,
        }
        self._take(row)
        append_jsonl(self.store, [row])

    def _take(self, row: dict[str, Any]) -> None:
        if not _finished(self.answers.get(row["key"])):
            self.answers[row["key"]] = row

    def _key(self, prompt: PromptText, sample: int) -> str:
        # Without the token limit: a finished answer stays one when the limit is raised.
        # 64 characters, as batch files allow.
        drawn = self.sampling.record() | {"max_new_tokens": None}
        text = prompt if isinstance(prompt, str) else [dict(m) for m in prompt]
        asked = [
            self.engine.model,
            text,
            drawn,
            self.engine.is_chat(prompt),
            self.engine.reasoning,
            sample,
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _ungraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without the grades of the response that the teacher's takes the place of."""
    return {k: v for k, v in row.items() if "response" not in row or k not in GRADES}


def _finished(answer: Mapping[str, Any] | None) -> bool:
    return (
        answer is not None
        and answer["finish_reason"] == "stop"
        and bool(answer["response"].strip())
    )
