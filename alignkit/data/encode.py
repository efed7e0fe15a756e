"""Rows of data as TRL's trainers take them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alignkit.data import render, render_pair, require_columns
from alignkit.errors import InputError
from alignkit.recipe.schema import OwnGeneration
from alignkit.run.rows import Source
from alignkit.types import Message, Prompt

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
    for number, row in enumerate(rows):
        before, response = render_pair(prompt, row)
        prompt_ids, response_ids = encode_pair(tokenizer, before, response)
        if len(response_ids) < 2:
            raise InputError(
                f"row {number} has an empty response: nothing in it could be trained on"
            )
        if max_length is not None and len(prompt_ids) > LONGEST_PROMPT * max_length:
            kept.dropped_long_prompts += 1
            continue
        ids = prompt_ids + response_ids
        kept.truncated += max_length is not None and len(ids) > max_length
        labels = (
            [-100] * len(prompt_ids) if mask_prompt else prompt_ids
        ) + response_ids
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
    for number, row in enumerate(rows):
        rendered = render(prompt, row)
        if max_prompt is not None and len(prompt_ids(tokenizer, rendered)) > max_prompt:
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
    """Rows of `prompt`, `chosen` and `rejected` as texts, the responses ending with the
    EOS token.
    """
    from datasets import Dataset

    require_columns(rows, ["chosen", "rejected"], "preference training")
    kept, encoded = Kept(), []
    for row in rows:
        pair = {}
        for side in ("chosen", "rejected"):
            before, response = render_pair(prompt, {**row, "response": row[side]})
            text, tail = _texts(tokenizer, before, response)
            pair[side] = (
                tail
                if tail.endswith(tokenizer.eos_token)
                else tail + tokenizer.eos_token
            )
        if (
            max_length is not None
            and len(tokenizer(text)["input_ids"]) > LONGEST_PROMPT * max_length
        ):
            kept.dropped_long_prompts += 1
            continue
        longest = max(len(tokenizer(text + pair[side])["input_ids"]) for side in pair)
        kept.truncated += max_length is not None and longest > max_length
        encoded.append({"prompt": text, **pair})
    return Dataset.from_list(encoded), _checked(kept, encoded, max_length)


def prompt_ids(tokenizer: Any, rendered: str | Sequence[Message]) -> list[int]:
    """The tokens of a prompt; a list of messages goes through the chat template."""
    if isinstance(rendered, str):
        return list(tokenizer(rendered)["input_ids"])
    return list(
        tokenizer(_chat(tokenizer, rendered), add_special_tokens=False)["input_ids"]
    )


def encode_pair(
    tokenizer: Any, before: str | Sequence[Message], response: str
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the response with the EOS token at its end."""
    text, tail = _texts(tokenizer, before, response)
    response_ids = list(tokenizer(tail, add_special_tokens=False)["input_ids"])
    if not response_ids or response_ids[-1] != tokenizer.eos_token_id:
        response_ids.append(tokenizer.eos_token_id)
    special = isinstance(before, str)
    return list(tokenizer(text, add_special_tokens=special)["input_ids"]), response_ids


def _texts(
    tokenizer: Any, before: str | Sequence[Message], response: str
) -> tuple[str, str]:
    if isinstance(before, str):
        return before, response
    text = _chat(tokenizer, before)
    messages = [*map(dict, before), {"role": "assistant", "content": response}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    if not whole.startswith(text):
        raise InputError(
            "the chat template renders a conversation differently once it is answered,"
            " so its prompt cannot be masked; use a text prompt, or another template"
        )
    end = whole.rfind(tokenizer.eos_token)
    return (
        text,
        whole[len(text) : end + len(tokenizer.eos_token) if end > len(text) else None],
    )


def _chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    if tokenizer.chat_template is None:
        raise InputError(
            "the prompt is a list of chat messages, but the tokenizer has no chat"
            " template; use a text prompt"
        )
    return tokenizer.apply_chat_template(
        [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
    )


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
