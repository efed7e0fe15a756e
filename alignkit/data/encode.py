"""Rows of data as TRL's trainers take them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alignkit.data import render, render_pair, require_columns
from alignkit.errors import InputError
from alignkit.models import text
from alignkit.recipe.schema import OwnGeneration
from alignkit.run.rows import Source
from alignkit.types import Prompt

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

# of the maximum length: a longer prompt leaves too little room for a response
LONGEST_PROMPT = 0.7


@dataclass(slots=True)
class Kept:
    """What became of the rows; recorded in the manifest."""

    rows: int = 0
    dropped_long_prompts: int = 0
    truncated: int = 0

    def record(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def supervised(
    rows: Sequence[Mapping[str, Any]],
    prompt: Prompt | None,
    tokenizer: Any,
    *,
    max_length: int | None,
    mask_prompt: bool = True,
) -> tuple[Dataset, Kept]:
    """Rows of `input_ids` and `labels` (-100 on the prompt when `mask_prompt`), each
    ending with the EOS token.

    Prompt and response are tokenised apart, then joined (as CS336 does), so that no
    token spans both. A prompt over 70 % of `max_length` is dropped with a count; a
    longer response is cut with a count.

    Raises:
        InputError: a row without text, or no row that fits.
    """
    from datasets import Dataset

    require_columns(rows, ["response"], "supervised training")
    kept, encoded = Kept(), []
    pairs = text.each(rows, lambda row: _pair(tokenizer, prompt, row), "training data")
    for before, after in pairs:
        if max_length is not None and len(before) > LONGEST_PROMPT * max_length:
            kept.dropped_long_prompts += 1
            continue
        ids = before + after
        kept.truncated += max_length is not None and len(ids) > max_length
        labels = ([-100] * len(before) if mask_prompt else before) + after
        encoded.append({"input_ids": ids[:max_length], "labels": labels[:max_length]})
    return Dataset.from_list(encoded), _checked(kept, encoded, max_length)


def problems(
    rows: Sequence[Mapping[str, Any]],
    prompt: Prompt | None,
    tokenizer: Any,
    *,
    max_prompt: int | None = None,
) -> tuple[Dataset, Kept]:
    """Rows of `prompt` and `row`, the number in `rows` of what it was made of: TRL
    carries no more, and the rewards find truth and metadata there.
    """
    from datasets import Dataset

    kept, encoded = Kept(), []

    def tokens(row: Mapping[str, Any]) -> tuple[Any, int]:
        rendered = render(prompt, row)
        return rendered, len(text.prompt_ids(tokenizer, rendered))

    for number, (rendered, length) in enumerate(
        text.each(rows, tokens, "training data")
    ):
        if max_prompt is not None and length > max_prompt:
            kept.dropped_long_prompts += 1
            continue
        encoded.append({"prompt": rendered, "row": number})
    return Dataset.from_list(encoded), _checked(kept, encoded, max_prompt)


def metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row holds beside the columns that have a meaning of their own."""
    return {k: v for k, v in row.items() if k not in ("prompt", "truth", "response")}


def source(row: Mapping[str, Any], number: int, spec: Mapping[str, Any]) -> Source:
    """Where a row comes from; `spec` is what the recipe says of its data set."""
    file = spec.get("path") or spec.get("dataset")
    return {"index": number, "id": row.get("id"), "file": file}


def prompt_room(generation: OwnGeneration, context: int, engine: str = "") -> int:
    """Tokens that a prompt may have so that all of `max_new_tokens` fit behind it;
    `engine` is what `auto` became.
    """
    if (engine or generation.engine) == "vllm" and generation.vllm is not None:
        context = min(context, generation.vllm.max_model_len or context)
    return context - generation.sampling.max_new_tokens


def preferences(
    rows: Sequence[Mapping[str, Any]],
    prompt: Prompt | None,
    tokenizer: Any,
    *,
    max_length: int | None,
) -> tuple[Dataset, Kept]:
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`, the responses ending with
    the EOS token; TRL cuts what goes beyond `max_length`.
    """
    from datasets import Dataset

    require_columns(rows, ["chosen", "rejected"], "preference training")
    kept, encoded = Kept(), []

    def sides(row: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
        chosen, rejected = (
            _pair(tokenizer, prompt, {**row, "response": row[side]})
            for side in ("chosen", "rejected")
        )
        return *chosen, rejected[1]

    for before, chosen, rejected in text.each(rows, sides, "training data"):
        if max_length is not None and len(before) > LONGEST_PROMPT * max_length:
            kept.dropped_long_prompts += 1
            continue
        longest = len(before) + max(len(chosen), len(rejected))
        kept.truncated += max_length is not None and longest > max_length
        encoded.append(
            {"prompt_ids": before, "chosen_ids": chosen, "rejected_ids": rejected}
        )
    return Dataset.from_list(encoded), _checked(kept, encoded, max_length)


def _pair(
    tokenizer: Any, prompt: Prompt | None, row: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    before, after = text.pair_ids(tokenizer, *render_pair(prompt, row))
    if len(after) < 2:
        raise InputError("it has an empty response: nothing in it could be trained on")
    return before, after


def _checked(kept: Kept, encoded: Sequence[Any], limit: int | None) -> Kept:
    kept.rows = len(encoded)
    if not encoded:
        raise InputError(
            f"no row is left: all {kept.dropped_long_prompts} prompts are too long for"
            f" {limit} tokens"
        )
    if kept.dropped_long_prompts or kept.truncated:
        log.warning(
            "data: %d rows kept, %d dropped for a long prompt, %d cut at the maximum"
            " length",
            *(kept.rows, kept.dropped_long_prompts, kept.truncated),
        )
    return kept
