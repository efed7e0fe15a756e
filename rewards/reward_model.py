"""A reward model: a sequence-classification model with one output, through
transformers.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

from alignkit import InputError, MissingError, Reward, Score, hookimpl


@functools.cache
def _loaded(model: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        net, info = AutoModelForSequenceClassification.from_pretrained(
            model,
            trust_remote_code=False,
            num_labels=1,
            dtype="auto",
            output_loading_info=True,
        )
    except (OSError, ValueError, UnpicklingError) as error:
        raise MissingError(
            f"the reward model {model!r} cannot be loaded: {error}"
        ) from error
    if info["missing_keys"]:
        raise InputError(
            f"{model} is no reward model: it has no trained"
            f" {', '.join(sorted(info['missing_keys']))}"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    net = net.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    net.config.pad_token_id = tokenizer.pad_token_id
    return net, tokenizer


def reward_model(
    responses: Sequence[str],
    prompts: Sequence[str | Sequence[Mapping[str, str]]],
    *,
    model: str,
    batch_size: int = 8,
    max_length: int = 4096,
) -> list[Score]:
    """The logit of `model` (a folder or Hub id) for each conversation, or for prompt
    and response as one text.

    Scores compare within one prompt only. A text over `max_length` tokens is cut at its
    start.
    """
    import torch

    net, tokenizer = _loaded(model)
    texts = [_text(tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)]
    tokenizer.truncation_side = "left"
    # a chat template has its own special tokens
    plain = all(isinstance(prompt, str) for prompt in prompts)
    scores: list[Score] = []
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            texts[start : start + batch_size],
            padding=True,
            truncation=True,
            max_length=max_length,
            add_special_tokens=plain,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = net(**batch.to(net.device)).logits[:, 0].float()
        scores += [
            Score(value, "ok", {"reward_model": value}) for value in logits.tolist()
        ]
    return scores


def _text(
    tokenizer: Any, prompt: str | Sequence[Mapping[str, str]], response: str
) -> str:
    if isinstance(prompt, str):
        return prompt + response
    messages = [*map(dict, prompt), {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages, tokenize=False)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("reward_model", reward_model)
