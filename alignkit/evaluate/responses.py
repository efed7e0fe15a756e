"""Stored responses in the place of a model: match them to an eval's samples, or let
them bring their own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.data.columns import QUESTION_COLUMNS, QUESTION_OR_PROMPT
from alignkit.data.files import file_rows
from alignkit.data.rows import read_conversations
from alignkit.errors import InputError, MissingError, listing
from alignkit.grading.truths import TRUTH_COLUMNS, truth_column
from alignkit.run.rows import Row
from alignkit.types import Sample

Columns = dict[str, Any]  # a row of the file
_RESPONSE = ("response", "output", "completion", "generation")
_TOKENS = ("tokens", "response_token_length")


@dataclass(frozen=True, slots=True)
class StoredResponses:
    """Rows of a file, each with a `response` (or `output`, `completion`, `generation`).

    Rows with a `truth` (or `ground_truth`, `answer`) and no `id` bring their own questions.
    Others are matched to the eval's samples: by `id`, else by the question's text,
    else, when there are as many, by order. A text that several samples share (some
    benchmarks have such) tells nothing: then ids are needed, or as many rows as
    samples, in their order.
    """

    path: Path
    rows: list[Columns]

    @classmethod
    def read(cls, path: Path | str) -> StoredResponses:
        """Read a file of any format that `data.files` knows.

        Raises:
            MissingError: no such file. InputError: malformed, or rows without a
                response.
        """
        file = Path(path)
        if not file.is_file():
            raise MissingError(
                f"there is no file of responses {path} (looked in {Path.cwd()})"
            )
        rows = []
        for each in read_conversations(file_rows(file)):
            if each.problem:
                raise InputError(each.problem)
            if not isinstance(_first(each.row, _RESPONSE), str):
                raise InputError(
                    f"{each.place} has no text `response`; it has"
                    f" {listing(sorted(map(str, each.row)))}"
                )
            _count(_first(each.row, _TOKENS), each.place)
            rows.append(each.row)
        if not rows:
            raise InputError(f"{path} holds no responses")
        return cls(file, rows)

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def brings_questions(self) -> bool:
        """Whether the rows stand for themselves."""
        return all(
            _truth(r) is not None and r.get("id") is None and _text(r) is not None
            for r in self.rows
        )

    def questions(self) -> list[Columns]:
        """Dataset rows of the distinct questions; `_numbers` are the numbers of their
        responses.
        """
        grouped: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(self.rows):
            grouped[json.dumps([_text(row), _truth(row)])].append(number)
        found = []
        for index, numbers in enumerate(grouped.values()):
            row = self.rows[numbers[0]]
            kept = {
                k: v
                for k, v in row.items()
                if k not in (*_RESPONSE, *TRUTH_COLUMNS, *QUESTION_COLUMNS, *_TOKENS)
            }
            question = _first(row, QUESTION_COLUMNS)
            more = {"question": question} if question is not None else {}
            found.append(
                {
                    **kept,
                    **more,
                    "id": f"r{index}",
                    "truth": _truth(row),
                    "_numbers": numbers,
                }
            )
        return found

    def match(
        self,
        samples: Sequence[Sample],
        questions: Mapping[str, str],
        chosen: Sequence[Sample],
    ) -> dict[tuple[str, int], Row]:
        """(sample id, number) -> response. `questions` gives the text of each sample's
        question by its id.

        By order, the rows stand for all samples, or for the `chosen` ones of a limit.

        Raises:
            InputError: rows that belong to no sample, or no way to tell.
        """
        ids = {s.id for s in samples}
        if all(row.get("id") is not None for row in self.rows):
            self._same_questions(questions)
            return self._by(
                lambda row: str(row["id"]) if str(row["id"]) in ids else None, "id"
            )
        ordered = next(
            (part for part in (samples, chosen) if len(part) == len(self.rows)), None
        )
        texts = [_first(row, QUESTION_COLUMNS) for row in self.rows]
        if all(isinstance(text, str) for text in texts):
            by_text = {text: name for name, text in questions.items()}
            shared = Counter(questions.values())
            if ordered is None or texts != [questions.get(s.id) for s in ordered]:
                if several := next((text for text in texts if shared[text] > 1), None):
                    raise InputError(
                        f"{self.path}: {shared[several]} of the eval's samples have the"
                        f" question {several[:80]!r}: give each row the `id` of its"
                        " sample, or all rows in the samples' order"
                    )
                return self._by(
                    lambda row: by_text.get(_first(row, QUESTION_COLUMNS)), "question"
                )
        if ordered is None:
            raise InputError(
                f"{self.path} has {len(self.rows)} responses for {len(chosen)} samples,"
                " and neither `id` nor `question` to tell which is which"
            )
        return {
            (s.id, 0): completion(row)
            for s, row in zip(ordered, self.rows, strict=True)
        }

    def _same_questions(self, questions: Mapping[str, str]) -> None:
        """Ids are counted alike in other splits and benchmarks: what a row says of its
        question must fit.
        """
        for number, row in enumerate(self.rows, 1):
            kept = row.get("metadata")
            text = _first(
                {**(kept if isinstance(kept, dict) else {}), **row}, QUESTION_COLUMNS
            )
            expected = questions.get(str(row["id"]))
            if (
                text is not None
                and expected is not None
                and str(text).strip() != expected.strip()
            ):
                raise InputError(
                    f"{self.path}: row {number} has the id {row['id']} and the question"
                    f" {str(text)[:80]!r}; under this id the eval asks"
                    f" {expected[:80]!r}: they are responses to other data"
                )

    def _by(
        self, name_of: Callable[[Columns], str | None], what: str
    ) -> dict[tuple[str, int], Row]:
        found: dict[tuple[str, int], Row] = {}
        counts: dict[str, int] = defaultdict(int)
        for row in self.rows:
            name = name_of(row)
            if name is None:
                continue
            found[(name, counts[name])] = completion(row)
            counts[name] += 1
        if not found:
            raise InputError(
                f"{self.path}: no row's {what} is one of the eval's samples"
            )
        return found


def completion(row: Mapping[str, Any]) -> Row:
    """What a generated row says of its completion."""
    finish = row.get("finish_reason") or "stop"
    found: Row = {
        "response": _first(row, _RESPONSE),
        "finish_reason": finish,
        "tokens": _count(_first(row, _TOKENS), ""),
    }
    kept = row.get("metadata")
    if isinstance(kept, dict) and "loglikelihoods" in kept:
        found["metadata"] = {"loglikelihoods": kept["loglikelihoods"]}
    return found


def _count(tokens: Any, where: str) -> int | None:
    """A number of tokens; a CSV file has texts, and nothing for unknown."""
    try:
        return None if tokens in (None, "") else int(tokens)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where} has {tokens!r} as its number of tokens; expected an integer"
        ) from error


def _text(row: Mapping[str, Any]) -> Any:
    return _first(row, QUESTION_OR_PROMPT)


def _truth(row: Mapping[str, Any]) -> Any:
    return row.get(truth_column(row) or "truth")


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
