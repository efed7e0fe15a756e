"""Sequences as token ids, their log-probs, and what is computed of demonstrations and
preference pairs.

Shapes: B sequences, T tokens of the padded sequence, V words, N = prompts x G
completions. A mask may be of any dtype; a value is counted where its mask is not zero.
Padding is never read: it may hold anything, NaN too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit import json_text
from alignkit.functional import compute_entropy, dpo_loss, masked_normalize

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset
    from transformers import PreTrainedTokenizerBase


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str],
    output_strs: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    add_special_tokens: bool = True,
) -> dict[str, Tensor]:
    """Tokenise prompts and outputs apart, join them, pad right, and shift by one.

    Returns `input_ids`, `labels` and `response_mask`, all (B, longest - 1). The mask is
    bool and aligned with `labels`: True where the label is an output token. Special
    tokens (BOS) are put before the prompt only, if at all.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id
    prompts = [
        tokenizer(text, add_special_tokens=add_special_tokens).input_ids
        for text in prompt_strs
    ]
    outputs = [
        tokenizer(text, add_special_tokens=False).input_ids for text in output_strs
    ]
    rows = list(zip(prompts, outputs, strict=True))
    width = max(len(prompt) + len(output) for prompt, output in rows)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, (prompt, output) in enumerate(rows):
        end = len(prompt) + len(output)
        ids[row, :end] = torch.tensor(prompt + output, dtype=torch.long)
        mask[row, len(prompt) : end] = True
    return {
        "input_ids": ids[:, :-1],
        "labels": ids[:, 1:],
        "response_mask": mask[:, 1:],
    }


def get_response_log_probs(
    model: torch.nn.Module,
    input_ids: Tensor,
    labels: Tensor,
    return_token_entropy: bool = False,
) -> dict[str, Tensor]:
    """`log_probs` (B, T) of the labels under a causal model, and `token_entropy` (B, T)
    without gradient.

    Rows must be padded right: no attention mask is passed, and a causal model never
    looks to the right.
    """
    logits = model(input_ids).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    result = {"log_probs": chosen - torch.logsumexp(logits, dim=-1)}
    if return_token_entropy:
        with torch.no_grad():
            result["token_entropy"] = compute_entropy(logits)
    return result


def sft_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    normalize_constant: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Backward through one microbatch of supervised fine-tuning; `policy_log_probs` (B,
    T).

    The loss is the negative log-likelihood summed over a response and divided by the
    constant, then the mean over the batch, divided by the number of accumulated
    microbatches. Returns that loss (a scalar) and metadata.
    """
    # (B,)
    per_sequence = masked_normalize(
        -policy_log_probs, response_mask, -1, normalize_constant
    )
    loss = per_sequence.mean() / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), {"response_tokens": response_mask.bool().sum()}


def compute_per_instance_dpo_loss(
    lm: torch.nn.Module,
    lm_ref: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    beta: float,
    prompt: str,
    response_chosen: str,
    response_rejected: str,
    template: str,
) -> Tensor:
    """DPO loss (a scalar) of one preference pair under the policy `lm` and the frozen
    `lm_ref`.

    `template` holds `{instruction}` and `{response}`; what follows the response is left
    out, and the EOS token ends it. Only response tokens count: those of the prompt
    cancel.
    """
    before, _ = _split(template)
    prompts = [before.replace("{instruction}", prompt)] * 2
    outputs = [
        response + str(tokenizer.eos_token)
        for response in (response_chosen, response_rejected)
    ]
    batch = tokenize_prompt_and_output(prompts, outputs, tokenizer)

    def logps(model: torch.nn.Module) -> Tensor:
        device = next(model.parameters()).device
        ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)
        per_token = get_response_log_probs(model, ids, labels)["log_probs"]
        return masked_normalize(per_token, batch["response_mask"].to(device), dim=-1)

    policy = logps(lm)
    with torch.no_grad():
        reference = logps(lm_ref).to(policy.device)
    return dpo_loss(policy[0], policy[1], reference[0], reference[1], beta)


def _split(template: str) -> tuple[str, str]:
    before, separator, after = template.partition("{response}")
    if not separator:
        raise ValueError("the template has no {response}")
    return before, after


def get_packed_sft_dataset(
    tokenizer: PreTrainedTokenizerBase,
    dataset_path: str | os.PathLike[str],
    seq_length: int,
    shuffle: bool,
    template: str,
) -> Dataset[dict[str, Tensor]]:
    """Pack the documents of a JSON-lines file (`prompt`, `response`) into rows of
    `seq_length` tokens.

    Each document is the template filled in, with the tokenizer's special tokens, ended
    by EOS; all are joined and cut into chunks without overlap; a tail too short for a
    row with its labels is dropped. `shuffle` orders the documents by torch's global
    generator. Items: `input_ids` and `labels` (the next tokens), both (seq_length,).
    """
    from torch.utils.data import StackDataset

    before, _ = _split(template)
    lines = Path(dataset_path).read_text(encoding="utf-8").splitlines()
    rows = [json_text.load(line) for line in lines if line.strip()]
    order = torch.randperm(len(rows)).tolist() if shuffle else range(len(rows))
    stream: list[int] = []
    for row in (rows[index] for index in order):
        text = before.replace("{instruction}", row["prompt"]) + row["response"]
        stream += [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    count = (len(stream) - 1) // seq_length
    tokens = torch.tensor(stream[: count * seq_length + 1], dtype=torch.long)
    return StackDataset(
        input_ids=tokens[:-1].view(count, seq_length),
        labels=tokens[1:].view(count, seq_length),
    )


def iterate_batches(
    dataset: Dataset[dict[str, Tensor]], batch_size: int, shuffle: bool
) -> DataLoader[dict[str, Tensor]]:
    """One epoch over the dataset in batches of (batch_size, seq_length); the last one
    may be smaller.
    """
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)
