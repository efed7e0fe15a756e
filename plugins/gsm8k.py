"""GSM8K: grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168)."""

import re
from collections.abc import Iterator
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_rows

_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def load(*, split: str = "train", path: str | None = None) -> list[dict[str, Any]]:
    """`question`, `truth` (the number after `####`, without thousands separators),
    `solution`.
    """
    local = (f"gsm8k_{split}.jsonl", f"gsm8k/{split}.jsonl")
    rows = read_rows(
        path=path, local=local, hub="openai/gsm8k", config="main", split=split
    )
    return [_row(row, number) for number, row in enumerate(rows, 1)]


def _row(row: dict[str, Any], number: int) -> dict[str, Any]:
    question, (solution, mark, last) = (
        row.get("question"),
        str(row.get("answer")).rpartition("####"),
    )
    truth = last.strip().replace(",", "")
    if not isinstance(question, str) or not mark or not _NUMBER.fullmatch(truth):
        raise InputError(
            f"GSM8K row {number}: expected `question` and an `answer` that ends in"
            f" `#### NUMBER`, got {str(row)[:200]}"
        )
    return {
        "id": f"gsm8k-{number - 1}",
        "question": question,
        "truth": truth,
        "solution": solution.strip(),
    }


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("gsm8k", load)
