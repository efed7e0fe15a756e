"""Any local data file: .jsonl, .json, .csv, .tsv, .parquet, each also gzipped."""

from collections.abc import Iterable, Iterator
from typing import Any

from alignkit import DatasetSource, hookimpl, read_rows

_KINDS = tuple(
    kind + packed
    for kind in ("jsonl", "ndjson", "json", "csv", "tsv", "parquet")
    for packed in ("", ".gz")
)


def load(
    *, path: str, split: str = "train", columns: dict[str, str] | None = None
) -> Iterable[dict[str, Any]]:
    """Rows of the file `path`, or of `<split>.jsonl` (.json, .csv, …) in the folder
    `path`.

    `columns` maps the names that alignkit uses to the file's own: {question: problem,
    truth: answer}. Conversations (`messages`, ShareGPT's `conversations`) become
    `prompt` and `response`.
    """
    return read_rows(
        path=path,
        local=[f"{split}.{kind}" for kind in _KINDS],
        columns=columns,
        stream=True,
        conversations=True,
    )


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("jsonl", load)
