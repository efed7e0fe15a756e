"""The functions of the Stanford CS336 alignment assignment that no trainer uses, with
its signatures; those that trainers use as well stand in `functional`.

Shapes: B sequences, T tokens of the padded sequence, V words, N = prompts x G
completions. A mask may be of any dtype; a value is counted where its mask is not zero.
Padding is never read: it may hold anything, NaN too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.functional import (
    compute_entropy,
    compute_grpo_clip_loss,
    compute_grpo_no_clip_loss,
    compute_naive_policy_gradient_loss,
    dpo_loss,
    group_normalize,
    masked_mean,
    masked_normalize,
)
from alignkit.kits.builtin.evals._mmlu import parse_mmlu_response
from alignkit.kits.builtin.evals.gsm8k import parse_gsm8k_response

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset
    from transformers import PreTrainedTokenizerBase

# every function of the assignment, wherever it stands
__all__ = [
    "POLICY_GRADIENT_LOSSES",
    "compute_entropy",
    "compute_group_normalized_rewards",
    "compute_grpo_clip_loss",
    "compute_grpo_no_clip_loss",
    "compute_naive_policy_gradient_loss",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "dpo_loss",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "group_normalize",
    "grpo_microbatch_train_step",
    "iterate_batches",
    "masked_mean",
    "masked_normalize",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "sft_microbatch_train_step",
    "tokenize_prompt_and_output",
]

POLICY_GRADIENT_LOSSES = (
    "no_baseline",
    "reinforce_with_baseline",
    "grpo_clip",
    "grpo_no_clip",
)


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str],
    output_strs: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Tensor]:
    """Tokenise prompts and outputs apart, join them, pad right, and shift by one.

    Returns `input_ids`, `labels` and `response_mask`, all (B, longest - 1). The mask is
    bool and aligned with `labels`: True where the label is an output token. Special
    tokens (BOS) are put before the prompt only.
    """
    pad = (
        tokenizer.eos_token_id
        if tokenizer.pad_token_id is None
        else tokenizer.pad_token_id
    )
    prompts = [tokenizer(text).input_ids for text in prompt_strs]
    outputs = [
        tokenizer(text, add_special_tokens=False).input_ids for text in output_strs
    ]
    width = max(
        len(prompt) + len(output)
        for prompt, output in zip(prompts, outputs, strict=True)
    )
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
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


def compute_group_normalized_rewards(
    reward_fn: Callable[[str, str], Mapping[str, float]],
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    advantage_eps: float,
    normalize_by_std: bool,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Grade N responses and normalise each group of G adjacent ones: (advantages (N,),
    rewards (N,), metadata).

    `reward_fn(response, truth)` returns `reward`, `format_reward` and `answer_reward`.
    See `group_normalize`.
    """
    scores = [
        reward_fn(*pair)
        for pair in zip(rollout_responses, repeated_ground_truths, strict=True)
    ]
    rewards = torch.tensor([score["reward"] for score in scores], dtype=torch.float32)
    metadata = {
        name: sum(float(score[name]) for score in scores) / len(scores)
        for name in ("reward", "format_reward", "answer_reward")
    }
    metadata |= {"reward_min": rewards.min().item(), "reward_max": rewards.max().item()}
    return (
        group_normalize(rewards, group_size, advantage_eps, normalize_by_std),
        rewards,
        metadata,
    )


def compute_policy_gradient_loss(
    policy_log_probs: Tensor,
    loss_type: str,
    raw_rewards: Tensor | None = None,
    advantages: Tensor | None = None,
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One of `no_baseline`, `reinforce_with_baseline`, `grpo_clip`, `grpo_no_clip`: (B,
    T) per-token loss, metadata.

    ValueError when the type is unknown or a tensor it needs is missing.
    """
    if loss_type == "no_baseline":
        return (
            compute_naive_policy_gradient_loss(
                _given(raw_rewards, "raw_rewards", loss_type), policy_log_probs
            ),
            {},
        )
    if loss_type not in POLICY_GRADIENT_LOSSES:
        raise ValueError(
            f"loss_type {loss_type!r} is unknown; known:"
            f" {', '.join(POLICY_GRADIENT_LOSSES)}"
        )
    advantages = _given(advantages, "advantages", loss_type)
    if loss_type == "reinforce_with_baseline":
        return compute_naive_policy_gradient_loss(advantages, policy_log_probs), {}
    old_log_probs = _given(old_log_probs, "old_log_probs", loss_type)
    if loss_type == "grpo_no_clip":
        return compute_grpo_no_clip_loss(advantages, policy_log_probs, old_log_probs)
    return compute_grpo_clip_loss(
        advantages,
        policy_log_probs,
        old_log_probs,
        _given(cliprange, "cliprange", loss_type),
    )


def _given(value: Any, name: str, loss_type: str) -> Any:
    if value is None:
        raise ValueError(f"loss_type {loss_type!r} needs {name}")
    return value


def grpo_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    loss_type: str,
    raw_rewards: Tensor | None = None,
    advantages: Tensor | None = None,
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Backward through one microbatch of a policy gradient; shapes as in
    `compute_policy_gradient_loss`.

    The per-token loss is averaged over each response, then over the batch, and divided
    by the number of accumulated microbatches. A row without response tokens counts as
    0. Returns that loss and the metadata.
    """
    per_token, metadata = compute_policy_gradient_loss(
        policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange
    )
    tokens = response_mask.bool().sum(-1).clamp(min=1)  # (B,)
    per_sequence = masked_normalize(per_token, response_mask, dim=-1) / tokens
    loss = per_sequence.mean() / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), metadata


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
    before, found, after = template.partition("{response}")
    if not found:
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
    rows = [json.loads(line) for line in lines if line.strip()]
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
    dataset: Dataset[Any], batch_size: int, shuffle: bool
) -> DataLoader[Any]:
    """One epoch over the dataset in batches of (batch_size, seq_length); the last one
    may be smaller.
    """
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)
