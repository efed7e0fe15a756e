"""UltraFeedback, binarised: prompts with a chosen and a rejected answer (Cui et al.
2023, arXiv:2310.01377).
"""

from collections.abc import Iterator
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_messages, read_rows

_SPLITS = {"train": "train_prefs", "test": "test_prefs"}


def load(*, split: str = "train", path: str | None = None) -> list[dict[str, Any]]:
    """`question`, `chosen`, `rejected`; the chosen answer also as `response` (SFT) and
    `reference` (win rates).

    Conversations of several turns keep their earlier messages as `prompt`. Rows of a
    local file may be texts, and may have a `reference` in the place of the pair.
    """
    name = _SPLITS.get(split, split)
    local = (f"ultrafeedback_{name}.jsonl", f"ultrafeedback/{name}.jsonl")
    rows = read_rows(
        path=path, local=local, hub="HuggingFaceH4/ultrafeedback_binarized", split=name
    )
    return [_row(row, number) for number, row in enumerate(rows, 1)]


def _row(row: dict[str, Any], number: int) -> dict[str, Any]:
    question = row.get("prompt", row.get("question"))
    try:
        earlier, chosen = _side(row.get("chosen", row.get("reference")))
        _, rejected = _side(row.get("rejected"))
    except InputError as error:
        raise InputError(f"UltraFeedback row {number}: {error}") from error
    if not isinstance(question, str) or not isinstance(chosen, str):
        raise InputError(
            f"UltraFeedback row {number}: expected `prompt` and `chosen`, got"
            f" {sorted(row)}"
        )
    found = {"id": f"ultrafeedback-{number - 1}", "question": question, "truth": chosen}
    found |= {"chosen": chosen, "response": chosen, "reference": chosen}
    if len(earlier) > 1:
        found["prompt"] = earlier
    return found | ({"rejected": rejected} if isinstance(rejected, str) else {})


def _side(answer: Any) -> tuple[list[dict[str, str]], Any]:
    """The messages before the answer, where it is a conversation, and its text."""
    if not isinstance(answer, list) or not answer:
        return [], answer
    *earlier, last = read_messages(answer)
    return earlier, last["content"]


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("ultrafeedback", load)
