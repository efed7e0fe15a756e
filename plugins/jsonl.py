"""Any local data file: .jsonl, .json, .csv, .tsv, .parquet, each also gzipped."""

from collections.abc import Iterator
from typing import Any

from alignkit import DatasetSource, hookimpl, read_rows

_KINDS = ("jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "parquet")


def load(
    *, path: str, split: str = "train", columns: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Rows of the file `path`, or of `<split>.jsonl` (.json, .csv, …) in the folder
    `path`.

    `columns` maps the names that alignkit uses to the file's own: {question: problem,
    truth: answer}.
    """
    return read_rows(
        path=path, local=[f"{split}.{kind}" for kind in _KINDS], columns=columns
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("jsonl", load)
