"""MMLU, 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300)."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_rows

LETTERS = "ABCD"


def load(
    *, split: str = "test", path: str | None = None, shots: int = 0
) -> list[dict[str, Any]]:
    """`question`, `options`, `truth` (a letter), `subject`; a folder of the original
    CSV files is understood too.

    With `shots`, each row has as many solved `examples` of its subject, from the split
    `dev`.
    """
    rows = _read(split, path)
    solved: dict[str, list[dict[str, Any]]] = {}
    for example in (
        _read("dev", path if path and Path(path).is_dir() else None) if shots else ()
    ):
        solved.setdefault(example["subject"], []).append(example)
    for subject in sorted({row["subject"] for row in rows}) if shots else ():
        if len(solved.get(subject, ())) < shots:
            raise InputError(
                f"MMLU: shots is {shots}, but the split dev has"
                f" {len(solved.get(subject, ()))} solved questions of '{subject}'"
            )
    return (
        [{**row, "examples": solved[row["subject"]][:shots]} for row in rows]
        if shots
        else rows
    )


def _read(split: str, path: str | None) -> list[dict[str, Any]]:
    folder = Path(path) / split if path else None
    if folder is not None and folder.is_dir():
        return [
            row
            for file in sorted(folder.glob(f"*_{split}.csv"))
            for row in _original(file, split)
        ]
    rows = read_rows(
        path=path,
        local=[f"mmlu_{split}.jsonl"],
        hub="cais/mmlu",
        config="all",
        split=split,
    )
    return [_row(row, f"mmlu-{split}-{index}") for index, row in enumerate(rows)]


def _original(file: Path, split: str) -> Iterator[dict[str, Any]]:
    subject = file.stem.removesuffix(f"_{split}")
    # csv, not pandas, which reads the option `None` as missing
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for index, fields in enumerate(filter(None, csv.reader(lines))):
            row = {
                "question": fields[0],
                "options": fields[1:-1],
                "answer": fields[-1],
                "subject": subject,
            }
            yield _row(row, f"{subject}-{split}-{index}")


def _row(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    options = row.get("options", row.get("choices"))
    answer = row.get("answer")
    answer = LETTERS[answer] if type(answer) is int and 0 <= answer < 4 else answer
    texts = [row.get("question"), *(options if isinstance(options, list) else ())]
    if (
        len(texts) != 5
        or not all(isinstance(t, str) for t in texts)
        or answer not in list(LETTERS)
    ):
        raise InputError(
            f"{name}: expected `question`, four `options` and an `answer` A to D, got"
            f" {str(dict(row))[:200]}"
        )
    return {
        "id": name,
        "question": row["question"],
        "options": options,
        "truth": answer,
        "subject": row.get("subject") or "",
    }


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("mmlu", load)
