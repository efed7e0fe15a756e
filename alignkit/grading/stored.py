"""Grade the rows of a file, in order, resumably."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alignkit import json_text
from alignkit.errors import InputError, listing
from alignkit.grading.bound import BoundReward, Graded
from alignkit.grading.grader import Grader, Grading
from alignkit.grading.truths import TRUTH_COLUMNS, missing_truth, truth_column
from alignkit.json_text import BadJson
from alignkit.run import append_rows
from alignkit.run.rows import plain
from alignkit.types import Score

BATCH = 256  # rows graded and written at once
AHEAD = 4  # batches that are being graded while an earlier one is written


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a row keeps what rewards take. A truth that is not named is where
    `truth_column` finds it.
    """

    response: str = "response"
    truth: str | None = None
    prompt: str = "prompt"


class StoredRow(NamedTuple):
    """A row of the file with its number (see `data.rows.FileRow`), or what is wrong
    with it.
    """

    number: int
    row: dict[str, Any]
    problem: str = ""


class GradedRow(NamedTuple):
    """A row with the result of each reward; none where the row has a problem."""

    stored: StoredRow
    grades: Mapping[str, Graded]


def gradable(
    rows: Iterable[tuple[int, str, dict[str, Any], str]],
    fields: Fields,
    rewards: Iterable[BoundReward],
) -> Iterator[StoredRow]:
    """The (number, place, row, problem) of a file, also those that the rewards cannot
    grade, with the reason.
    """
    columns = {
        name.removesuffix("s") for reward in rewards for name in reward.arguments
    }
    for number, place, row, problem in rows:
        lacking = "" if problem else _lacking(row, fields, columns)
        yield StoredRow(number, row, problem or (lacking and f"{place}: {lacking}"))


def row_at(path: str, rows: Iterable[StoredRow], number: int) -> StoredRow:
    """The row of one line.

    Raises:
        InputError: there is none, or it cannot be graded.
    """
    for row in rows:
        if row.number == number and not row.problem:
            return row
        if row.number == number:
            raise InputError(row.problem)
    raise InputError(f"{path} has no row at line {number}")


def _lacking(row: Mapping[str, object], fields: Fields, columns: set[str]) -> str:
    for name in sorted(columns - {"metadata"}):
        field = _field(row, fields, name)
        if field not in row:
            others = TRUTH_COLUMNS if name == "truth" and not fields.truth else (field,)
            named = " or ".join(f"'{other}'" for other in others)
            return (
                f"there is no field {named} for the {name}; the row has"
                f" {listing(sorted(map(str, row)))}"
            )
        if name == "response" and not isinstance(row[field], str):
            return (
                f"the response in '{field}' is no text but {type(row[field]).__name__}"
            )
        if name == "truth" and (why := missing_truth(row[field])):
            return f"the truth in '{field}' {why}"
    return ""


def _field(row: Mapping[str, object], fields: Fields, name: str) -> str:
    return {
        "response": fields.response,
        "truth": fields.truth or truth_column(row) or "truth",
        "prompt": fields.prompt,
    }[name]


def values_of(row: Mapping[str, Any], fields: Fields) -> tuple[Any, Any, Any]:
    """The response, the truth and the prompt of a row."""
    truth = row.get(_field(row, fields, "truth"))
    return row.get(fields.response, ""), truth, row.get(fields.prompt)


def regrade(
    rows: Iterable[StoredRow],
    rewards: Mapping[str, BoundReward],
    grader: Grader,
    fields: Fields,
) -> Iterator[list[GradedRow]]:
    """Batches of rows with their grades, in order; a few batches are being graded while
    one is read.
    """
    waiting: deque[tuple[list[StoredRow], dict[str, Grading]]] = deque()
    for batch in _batches(rows):
        good = [stored.row for stored in batch if not stored.problem]
        values = [values_of(row, fields) for row in good]
        responses, truths, prompts = ([each[n] for each in values] for n in range(3))
        metadatas = [row.get("metadata", {}) for row in good]
        counts = [row.get("tokens") for row in good]
        tokens = [count if isinstance(count, int) else None for count in counts]
        columns = responses, truths, prompts, metadatas, tokens
        started = {
            label: grader.submit(reward, *columns) for label, reward in rewards.items()
        }
        waiting.append((batch, started))
        if len(waiting) > AHEAD:
            yield _collected(*waiting.popleft())
    while waiting:
        yield _collected(*waiting.popleft())


def _batches(rows: Iterable[StoredRow]) -> Iterator[list[StoredRow]]:
    batch: list[StoredRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _collected(
    batch: Sequence[StoredRow], started: Mapping[str, Grading]
) -> list[GradedRow]:
    results = {label: iter(grading.result()) for label, grading in started.items()}
    rows = []
    for stored in batch:
        grades: dict[str, Graded] = {}
        if not stored.problem:
            grades = {label: next(result) for label, result in results.items()}
        rows.append(GradedRow(stored, grades))
    return rows


def append_graded(path: Path, rows: Iterable[GradedRow]) -> None:
    """Append rows to the output: each input row with `grade: {<reward>: …}`, or `line`
    and `problem`.
    """
    append_rows(path, [_output(graded) for graded in rows])


def _output(graded: GradedRow) -> dict[str, Any]:
    stored = graded.stored
    if stored.problem:
        return {"line": stored.number, "problem": stored.problem}
    grades = {
        label: {
            "reward": score.reward,
            "parts": dict(score.parts),
            "status": score.status,
            "stage": score.stage,
            "seconds": round(seconds, 6),
        }
        for label, (score, seconds) in graded.grades.items()
    }
    before = stored.row.get("grade")
    return {
        **stored.row,
        "grade": {**(before if isinstance(before, dict) else {}), **grades},
    }


def graded_before(
    path: Path, rows: Iterator[StoredRow], labels: Sequence[str]
) -> list[GradedRow]:
    """What an earlier, interrupted command has written of the same rows, which are
    taken from `rows`.

    Raises:
        InputError: the file was written for other rows or rewards.
    """
    graded: list[GradedRow] = []
    if not path.exists():
        return graded
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                # torn by the interruption; it is cut off when the next rows are
                # appended
                break
            stored = next(rows, None)
            recorded = stored and _recorded(stored, _written(line), labels)
            if recorded is None:
                what = f"no result of this file with {', '.join(labels)}"
                raise InputError(
                    f"{path}:{number} is {what}; delete the file or choose another"
                    " --out"
                )
            graded.append(recorded)
    return graded


def _written(line: bytes) -> dict[str, Any]:
    try:
        row = json_text.load(line)
    except BadJson:
        return {}
    return row if isinstance(row, dict) else {}


def _recorded(
    stored: StoredRow, row: Mapping[str, object], labels: Sequence[str]
) -> GradedRow | None:
    if stored.problem:
        same = row == {"line": stored.number, "problem": stored.problem}
        return GradedRow(stored, {}) if same else None
    grades = row.get("grade")
    before = {k: v for k, v in stored.row.items() if k != "grade"}
    after = {k: v for k, v in row.items() if k != "grade"}
    same = after == before or after == plain(before)
    if not same or not isinstance(grades, dict) or not set(labels) <= grades.keys():
        return None
    return GradedRow(stored, {label: _graded(grades[label]) for label in labels})


def _graded(entry: Mapping[str, Any]) -> Graded:
    return Graded(
        Score(entry["reward"], entry["status"], entry["parts"], entry["stage"]),
        entry["seconds"],
    )
