"""A reward model in this process, for the eval `ultrafeedback`: `--judge
reward_model:PATH`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

from alignkit import InputError, Judge, hookimpl

BATCH = 8


def create(
    model: str,
) -> Callable[[Sequence[Sequence[Mapping[str, str]]], Mapping[str, Any]], list[str]]:
    """Answers `reward:X` for conversations that end with the reply to rate; X is the
    one output of the classifier.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network = AutoModelForSequenceClassification.from_pretrained(
            model, trust_remote_code=False, dtype="auto"
        ).eval()
    except (OSError, ValueError, UnpicklingError) as error:
        raise InputError(
            f"judge 'reward_model': {model} cannot be loaded: {error}"
        ) from error
    if network.config.num_labels != 1 or tokenizer.chat_template is None:
        raise InputError(
            f"judge 'reward_model': {model} has {network.config.num_labels} outputs and"
            f" {'a' if tokenizer.chat_template else 'no'} chat template; expected one"
            " output and a chat template"
        )
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    network.config.pad_token_id = tokenizer.pad_token_id

    @torch.no_grad()
    def rate(
        conversations: Sequence[Sequence[Mapping[str, str]]],
        sampling: Mapping[str, Any],
    ) -> list[str]:
        texts = [
            tokenizer.apply_chat_template([dict(m) for m in c], tokenize=False)
            for c in conversations
        ]
        found = []
        for start in range(0, len(texts), BATCH):
            # The template has written the special tokens already.
            batch = tokenizer(
                texts[start : start + BATCH],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            )
            found += network(**batch.to(network.device)).logits[:, 0].float().tolist()
        return [f"reward:{value}" for value in found]

    return rate


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="reward_model",
        model="Skywork/Skywork-Reward-V2-Llama-3.1-8B",
        price=0.0,
        create=create,
    )
