"""Keep the rows that are worth training on, and count why the others went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from alignkit.data import require_columns, require_truth
from alignkit.data.rows import RowError
from alignkit.data.split import digest, normalise, question_of
from alignkit.data.spool import Spool
from alignkit.errors import listing

if TYPE_CHECKING:
    from alignkit.grading.bound import BoundReward
    from alignkit.plugins import Registry

Row = Mapping[str, Any]
Duplicates = Literal["keep", "question", "response", "both"]
UNGRADED = ("timeout", "error")  # statuses that say nothing about the row
_BATCH = 4096  # rows that are graded at once


@dataclass(slots=True)
class Filter:
    """Rules that a row must meet, in this order; one that is None is not applied.

    `min_reward` reads the row's `reward` (and `status`). `finish_reasons` reads
    `finish_reason`. Lengths are in tokens, of the count given with the row.
    `duplicates` compares normalised texts and keeps the first row. `dropped` counts, by
    the first rule that a row failed.
    """

    min_reward: float | None = None
    finish_reasons: tuple[str, ...] | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    duplicates: Duplicates = "keep"
    dropped: Counter[str] = field(default_factory=Counter)

    def apply(
        self, rows: Sequence[Row], tokens: Sequence[int] | None = None
    ) -> Iterator[Row]:
        """The rows that meet all rules, one after another in their order.

        Raises:
            RowError: a rule reads a column that a row does not have.
        """
        seen: set[tuple[bytes, ...]] = set()
        for number, row in enumerate(rows):
            why = self._fault(row, number, None if tokens is None else tokens[number])
            if why is None and self.duplicates != "keep":
                key = self._identity(row, number)
                why = "duplicate" if key in seen else None
                seen.add(key)
            if why is None:
                yield row
            else:
                self.dropped[why] += 1

    def _fault(self, row: Row, number: int, tokens: int | None) -> str | None:
        if self.min_reward is not None:
            reward = _column(row, "reward", number)
            if row.get("status") in UNGRADED:
                return f"not graded ({row['status']})"
            if not isinstance(reward, int | float) or not reward >= self.min_reward:
                return f"reward below {self.min_reward:g}"
        if self.finish_reasons is not None:
            reason = _column(row, "finish_reason", number)
            if reason not in self.finish_reasons:
                return f"finish reason {str(reason)[:40]}"
        if (
            tokens is not None
            and self.min_tokens is not None
            and tokens < self.min_tokens
        ):
            return f"shorter than {self.min_tokens} tokens"
        if (
            tokens is not None
            and self.max_tokens is not None
            and tokens > self.max_tokens
        ):
            return f"longer than {self.max_tokens} tokens"
        return None

    def _identity(self, row: Row, number: int) -> tuple[bytes, ...]:
        question = (
            (digest(normalise(question_of(row, number + 1))),)
            if self.duplicates in ("question", "both")
            else ()
        )
        if self.duplicates == "question":
            return question
        response = str(_column(row, "response", number))
        return (*question, digest(normalise(response)))


def graded(rows: Sequence[Row], registry: Registry, spec: str) -> Sequence[Row]:
    """The rows with `reward` and `status`, by the reward `NAME[:OPTION=VALUE,…]`.

    Raises:
        InputError: no such reward or option, or a row that it cannot grade.
    """
    from alignkit.grading.bound import bind_specs

    [reward] = bind_specs(registry, [spec]).values()
    _require_texts(rows, f"reward '{reward.name}'")
    require_truth(registry.get("reward", spec.partition(":")[0].strip()), rows)
    return Spool(_graded(rows, reward))


def _graded(rows: Sequence[Row], reward: BoundReward) -> Iterator[dict[str, Any]]:
    from alignkit.grading import Grader

    with Grader() as grader:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            responses = [str(row["response"]) for row in batch]
            truths, prompts = ([r.get(c) for r in batch] for c in ("truth", "prompt"))
            results = grader.score(reward, responses, truths, prompts, batch)
            for row, result in zip(batch, results, strict=True):
                score = result.score
                yield {**row, "reward": score.reward, "status": score.status}


def counted(rows: Sequence[Row], tokenizer: Any | None) -> list[int]:
    """The tokens of each response; without a tokenizer, what the column `tokens` says.

    Raises:
        RowError: a row without a text, or whose `tokens` is no number.
    """
    if tokenizer is not None:
        _require_texts(rows, "a filter by length")
        texts = (str(row["response"]) for row in rows)
        return [len(tokenizer(t, add_special_tokens=False).input_ids) for t in texts]
    require_columns(rows, ["tokens"], "a filter by length without --tokenizer")
    for number, row in enumerate(rows, 1):
        if type(row["tokens"]) is not int and not str(row["tokens"]).isdecimal():
            raise RowError(
                number,
                f"row {number}: `tokens` is {str(row['tokens'])[:40]!r}, expected a"
                " number",
            )
    return [int(row["tokens"]) for row in rows]


def _require_texts(rows: Sequence[Row], who: str) -> None:
    """Refuse a `response` that is no text: messages, graded or counted as Python prints
    them, mean nothing.
    """
    require_columns(rows, ["response"], who)
    for number, row in enumerate(rows, 1):
        if isinstance(row["response"], list | dict):
            raise RowError(
                number,
                f"row {number}: `response` is a {type(row['response']).__name__},"
                " expected a text; --column response=response.0.content, for instance,"
                " reads one out of messages",
            )


def _column(row: Row, name: str, number: int) -> Any:
    if name not in row:
        has = listing(sorted(map(str, row)))
        raise RowError(
            number + 1,
            f"row {number + 1} has no '{name}', which this filter reads; it has {has}",
        )
    return row[name]
