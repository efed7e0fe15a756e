"""The reasoning traces of gpt-oss-120b on MATH that the published SFT runs train on
(garg-aayush/sft-cs336-assign5-datasets on the Hub), or a local file of that form.
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, InputError, hookimpl, read_rows

_FILES = {
    "all": "sft_gpt-oss-120b.jsonl",
    "filtered": "sft_gpt-oss-120b_filtered.jsonl",
}
_COLUMNS = {"problem": "question", "reasoning_trace": "response"}


def load(
    *,
    split: str = "train",
    path: str | None = None,
    traces: Literal["all", "filtered"] = "all",
) -> list[dict[str, Any]]:
    """`question`, `response`, `truth`: all traces, or those whose answer is right."""
    if split != "train":
        raise InputError(f"dataset 'math_traces' has the split train, not '{split}'")
    file = _FILES[traces]
    rows = read_rows(
        path=path,
        local=(file, f"sft-reason/{file}"),
        hub="garg-aayush/sft-cs336-assign5-datasets",
        hub_file=f"sft-reason/{file}",
    )
    return [_row(row, number) for number, row in enumerate(rows, 1)]


def _row(row: dict[str, Any], number: int) -> dict[str, Any]:
    found = {new: row.get(old) for old, new in _COLUMNS.items()}
    truth = row.get("expected_answer")
    if truth is None or not all(isinstance(text, str) for text in found.values()):
        raise InputError(
            f"math_traces row {number}: expected problem, reasoning_trace,"
            f" expected_answer; it has {', '.join(sorted(map(str, row)))}"
        )
    return {"id": f"math-traces-{number - 1}", **found, "truth": str(truth)}


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("math_traces", load)
