"""Single-turn instructions and answers: UltraChat-200K, or a local file that mixes in
SafetyTuned (CS336 A5).
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_messages, read_rows


def load(
    *, split: str = "train", path: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """`question` and `response`.

    Local rows have `prompt` (or `question`) and `response`, as CS336's
    `train.jsonl.gz`; from the Hub the first question and answer of each UltraChat
    conversation are taken.
    """
    local = (f"instructions_{split}.jsonl.gz", f"instructions_{split}.jsonl")
    hub = "HuggingFaceH4/ultrachat_200k"
    rows = read_rows(path=path, local=local, hub=hub, split=f"{split}_sft", stream=True)
    return list(
        islice((_row(row, number) for number, row in enumerate(rows, 1)), limit)
    )


def _row(row: dict[str, Any], number: int) -> dict[str, Any]:
    messages = row.get("messages")
    if isinstance(messages, list) and len(messages) > 1:
        try:
            asked, said, *_ = read_messages(messages[:2])
        except InputError as error:
            raise InputError(f"instructions row {number}: {error}") from error
        found = {"question": asked["content"], "response": said["content"]}
    else:
        found = {
            "question": row.get("question", row.get("prompt")),
            "response": row.get("response"),
        }
    if not all(isinstance(text, str) for text in found.values()):
        raise InputError(
            f"instructions row {number}: expected texts `prompt` and `response`, got"
            f" {sorted(row)}"
        )
    return {"id": f"instructions-{number - 1}", **found}


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("instructions", load)
