"""SmolTalk: a million conversations for SFT (Allal et al. 2025, arXiv:2502.02737).
Streamed: it is large.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from alignkit import DatasetSource, InputError, hookimpl, read_messages, read_rows


def load(
    *,
    split: str = "train",
    path: str | None = None,
    limit: int | None = None,
    subset: str = "all",
    turns: Literal["last", "each"] = "last",
) -> list[dict[str, Any]]:
    """`prompt` (the messages before an answer) and `response`, of each conversation's
    last answer or of each one.
    """
    local = (f"smoltalk_{split}.jsonl", f"smoltalk/{split}.jsonl")
    rows = read_rows(
        path=path,
        local=local,
        hub="HuggingFaceTB/smoltalk",
        config=subset,
        split=split,
        stream=True,
    )
    return list(islice(_answers(rows, turns), limit))


def _answers(rows: Any, turns: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InputError(
                f"SmolTalk row {number}: expected a list of `messages`, got"
                f" {sorted(row)}"
            )
        try:
            messages = read_messages(messages)
        except InputError as error:
            raise InputError(f"SmolTalk row {number}: {error}") from error
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i]
        for i in answers if turns == "each" else answers[-1:]:
            yield {
                "id": f"smoltalk-{number - 1}-{i}",
                "prompt": messages[:i],
                "response": messages[i]["content"],
            }


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("smoltalk", load)
