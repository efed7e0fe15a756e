"""Look for rows in a run: by step, by group, by question, by what they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignkit.errors import InputError
from alignkit.records.run import Eval, Record
from alignkit.run import read_rows
from alignkit.run.rows import Row


@dataclass(frozen=True)
class Group:
    """The responses to one prompt of one step."""

    step: int
    number: int
    rows: Sequence[Row]

    @property
    def question(self) -> str:
        """What was asked."""
        return question_of(self.rows[0])

    @property
    def right(self) -> int:
        """How many responses are right."""
        return sum(row["status"] == "ok" for row in self.rows)


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted; what is left out wants all."""

    wrong: bool = False
    truncated: bool = False
    status: str | None = None
    text: str | None = None  # in prompt or response, case ignored

    def takes(self, row: Row) -> bool:
        """Whether a row is wanted."""
        if self.wrong and row["status"] in ("ok", "open", None):
            return False
        if self.truncated and row["finish_reason"] != "length":
            return False
        if self.status is not None and row["status"] != self.status:
            return False
        if self.text is None:
            return True
        return self.text.lower() in f"{row['prompt']}\n{row['response']}".lower()


def steps(record: Record) -> list[int]:
    """The steps (or iterations) that have rollouts."""
    return sorted({step for step, _ in _files(record)})


def rows(record: Record, step: int | None = None) -> Iterator[Row]:
    """Rollouts in the order of training, of one step or of all; files that cannot be
    read are named in `record.unread`.
    """
    for at, path in _files(record):
        if step is None or at == step:
            try:
                yield from read_rows(path)
            except (InputError, OSError) as error:
                record.unread.append(str(error))


def groups(record: Record, step: int) -> list[Group]:
    """The groups of a step.

    Raises:
        InputError: the step has no rollouts; those nearest are named.
    """
    by_number: dict[int, list[Row]] = {}
    for row in rows(record, step):
        number = row["group"]
        by_number.setdefault(number if isinstance(number, int) else 0, []).append(row)
    if not by_number:
        there = steps(record)
        if not there:
            raise InputError(f"{record.folder} holds no rollouts ({record.method})")
        close = sorted(sorted(there, key=lambda each: abs(each - step))[:3])
        raise InputError(
            f"{record.folder} has no rollouts of step {step}; it has {len(there)} steps,"
            f" {there[0]} to {there[-1]}, such as {', '.join(map(str, close))}"
        )
    return [Group(step, number, each) for number, each in sorted(by_number.items())]


def question_of(row: Row) -> str:
    """What a row asks: the data's question, or the last words of the prompt."""
    metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
    prompt = row["prompt"]
    if isinstance(prompt, list) and prompt:
        prompt = prompt[-1].get("content") if isinstance(prompt[-1], dict) else prompt
    return str(metadata.get("question") or prompt or row["id"])


def occurrences(record: Record, question: str) -> list[Group]:
    """A question across the steps: every group that asks it (the text, or part of it)."""
    wanted = question.lower()
    asked = [row for row in rows(record) if wanted in question_of(row).lower()]
    by_place: dict[tuple[int, int], list[Row]] = {}
    for row in asked:
        by_place.setdefault((row["step"] or 0, row["group"] or 0), []).append(row)
    return [Group(*place, each) for place, each in sorted(by_place.items())]


def answer_of(row: Row) -> str:
    """The answer of a response as it stands: the last box, answer tag or number."""
    response = str(row["response"])
    for pattern in (r"\\boxed\{([^{}]*)\}", r"<answer>(.*?)</answer>", r"-?\d[\d.,/]*"):
        if answers := re.findall(pattern, response, re.DOTALL):
            return str(answers[-1]).strip()
    return response.strip()[-20:]


def answers(group: Group, count: int = 3) -> list[tuple[str, int]]:
    """The commonest answers of a group."""
    return Counter(map(answer_of, group.rows)).most_common(count)


def evaluation(record: Record, name: str) -> Eval:
    """An eval by `NAME` (the last one) or `NAME@STEP`.

    Raises:
        InputError: there is none of that name; those that are there are named.
    """
    bare, _, step = name.partition("@")
    chosen = [
        each
        for each in record.evals
        if each.name == bare and step in ("", str(each.step))
    ]
    if not chosen:
        there = ", ".join(f"{each.name}@{each.step}" for each in record.evals)
        raise InputError(
            f"{record.folder} has no finished eval {name}; it has {there or 'none'}"
        )
    return chosen[-1]


def _files(record: Record) -> list[tuple[int, Path]]:
    rollouts = [
        (int(path.name.split("-")[1].split(".")[0]), path)
        for path in record.folder.glob("rollouts/step-*.jsonl")
        if re.fullmatch(r"step-\d+(\.\d+)?\.jsonl", path.name)
    ]
    iterations = [
        (int(path.parent.name), path)
        for path in record.folder.glob("iterations/*/rollouts.jsonl")
        if path.parent.name.isdigit()
    ]
    return sorted([*rollouts, *iterations])
