"""Answers of a teacher as training rows: all are written as they come, only finished
ones become rows, in the form that their prompt begins.

The ledger `<out>.answers.jsonl` beside the result holds all answers, so that a call
that was killed, or that ran into its cost limit, goes on where it was. A provider's
batch files work on the same ledger.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignkit import json_text
from alignkit.data import render
from alignkit.data.batches import read_result
from alignkit.data.form import Form
from alignkit.endpoint.costs import Estimate
from alignkit.endpoint.ledger import Answer, Ledger, request_key
from alignkit.endpoint.openai import CHAT, COMPLETIONS, OpenAIClient
from alignkit.errors import AlignError, InputError, WorkError
from alignkit.run import atomic_write, write_rows
from alignkit.sampling import REFUSED, PromptText, Sampling
from alignkit.thinking import behind_thinking
from alignkit.types import Prompt

# What reading an answer of the wrong shape may raise.
WRONG_SHAPE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
# columns about a response
GRADES = ("reward", "rewards", "status", "parts", "stage", "explanation", "correct")
ANSWERS = ("normalised", "adapted")  # columns about how a teacher answered


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
            `finish_reason`, `tokens`, `sample` and `teacher`; where there is something
            to say, `normalised` (see `form.CHANGES`) and `adapted` (what of the request
            the server did not take).
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
        self.prompt = prompt
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
        """What has no finished answer yet, what was refused before last.

        One that was cut is asked for again only with a higher token limit, one that was
        refused only with another one.
        """
        return sorted(filter(self._is_open, self.asks), key=self._is_refused)

    def _is_open(self, ask: Ask) -> bool:
        answer = self.answer(ask)
        if answer is None or _is_whole(answer):
            return answer is None
        before, now = answer.max_new_tokens or 0, self.sampling.max_new_tokens
        return before != now if answer.finish_reason == REFUSED else before < now

    def _is_refused(self, ask: Ask) -> bool:
        answer = self.answer(ask)
        return answer is not None and answer.finish_reason == REFUSED

    def answer(self, ask: Ask) -> Answer | None:
        """The first finished answer, or else the newest."""
        answers = self.ledger.answers(ask.key)
        newest = answers[-1] if answers else None
        return next(filter(_is_whole, answers), newest)

    def estimate(self) -> Estimate:
        """What is still to be asked will cost this."""
        return self.ledger.estimate([self._body(ask) for ask in self.todo()])

    def run(self, on_done: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Ask the teacher for what is missing, then write `out`; `on_done` gets the
        number of answers so far.

        Raises:
            MissingError: no key or a refused one. InputError: wrong model or URL.
                WorkError: the endpoint is gone, or the cost limit is reached; `out`
                then holds what is there. A request that is refused for good is settled.
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
        replace(outcome, refused={}).demand_all(
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
        """Take the answers of a provider's result file; counts of `taken`, `refused`
        (for good), `failed`, `unreadable` and `unknown`.

        Raises:
            InputError: the file cannot be read at all.
        """
        wanted = {ask.key for ask in self.todo()}
        known = {ask.key for ask in self.asks}
        kinds = ("taken", "refused", "failed", "unreadable", "unknown")
        counts = dict.fromkeys(kinds, 0)
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        for line in filter(bytes.strip, lines):
            try:
                row = json_text.load(line)
                key = row["custom_id"]
                kind, completion, usage = read_result(
                    self.client, row, self.sampling.stop
                )
                if key not in known:
                    kind = "unknown"
                counts[kind] += 1
                if completion and key in wanted:
                    limit = self.sampling.max_new_tokens
                    self.ledger.keep(key, limit, self.client.model, completion, usage)
                    self.ledger.budget.count(usage)
            except WRONG_SHAPE:
                counts["unreadable"] += 1
        return counts

    def write(self) -> dict[str, Any]:
        """Write the finished answers to `out`, in the order of the rows; returns what
        was counted.
        """
        rows, refusals, changes = [], Counter[str](), Counter[str]()
        answered = odd = 0
        for ask in self.asks:
            answer = self.answer(ask)
            if answer is None:
                continue
            answered += 1
            if answer.finish_reason == REFUSED:
                refusals[answer.text] += 1
            elif _is_whole(answer):
                form = Form.of(self.prompt, ask.prompt)
                text, changed = form.applied(answer.text)
                changes.update(changed)
                odd += not form.holds(text)
                rows.append(self._row(ask, answer, text, changed))
        write_rows(self.out, rows)
        budget = self.ledger.budget
        return {
            "out": str(self.out),
            "asked": len(self.asks),
            "repeated": self.repeated,
            "finished": len(rows),
            "normalised": dict(changes),
            "not_in_form": odd,
            "unfinished": answered - len(rows) - refusals.total(),
            "refused": refusals.total(),
            "refusals": dict(refusals.most_common(3)),
            "left": len(self.asks) - answered,
            "adapted": sorted(
                {text for row in rows for text in row.get("adapted", ())}
            ),
            "input_tokens": budget.input_tokens,
            "output_tokens": budget.output_tokens,
            "dollars": budget.dollars,
        }

    def _row(
        self, ask: Ask, answer: Answer, text: str, changed: Sequence[str]
    ) -> dict[str, Any]:
        row = {
            **_ungraded(ask.row),
            "prompt": ask.prompt,
            "response": text,
            "finish_reason": answer.finish_reason,
            "tokens": answer.tokens,
            "sample": ask.sample,
            "teacher": self.client.model,
        }
        known = {"normalised": list(changed), "adapted": list(answer.adapted)}
        return row | {name: values for name, values in known.items() if values}

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


def _is_whole(answer: Answer) -> bool:
    """Whether an answer came to its end and is more than a thought."""
    return answer.finished and bool((behind_thinking(answer.text) or "").strip())


def _ungraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without what is said of the response that the teacher's takes the place
    of.
    """
    dropped = (*GRADES, *ANSWERS) if "response" in row else ()
    return {name: value for name, value in row.items() if name not in dropped}
