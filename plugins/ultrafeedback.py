"""UltraFeedback, binarised: prompts with a chosen and a rejected answer (Cui et al.
2023, arXiv:2310.01377).
"""

from collections.abc import Iterator
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_rows

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
    question, best = (
        row.get("prompt", row.get("question")),
        row.get("chosen", row.get("reference")),
    )
    chosen = _text(best)
    if not isinstance(question, str) or not isinstance(chosen, str):
        raise InputError(
            f"UltraFeedback row {number}: expected `prompt` and `chosen`, got"
            f" {sorted(row)}"
        )
    found = {"id": f"ultrafeedback-{number - 1}", "question": question, "truth": chosen}
    found |= {"chosen": chosen, "response": chosen, "reference": chosen}
    if isinstance(best, list) and len(best) > 2:
        found["prompt"] = [
            {"role": m["role"], "content": m["content"]} for m in best[:-1]
        ]
    rejected = _text(row.get("rejected"))
    return found | ({"rejected": rejected} if isinstance(rejected, str) else {})


def _text(answer: Any) -> Any:
    """The last message of a conversation, or the text itself."""
    return answer[-1].get("content") if isinstance(answer, list) and answer else answer


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("ultrafeedback", load)
