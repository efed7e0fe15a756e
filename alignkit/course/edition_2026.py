"""The functions of the edition of 2026, under its names and signatures. Two of them are
other functions than those of 2025 by the same names, so this module stands apart.

Shapes: B sequences, T tokens of the padded sequence, N = prompts x G completions, of
groups that lie beside each other. Padding is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from alignkit.course import sequences
from alignkit.course.sequences import (
    compute_per_instance_dpo_loss,
    get_packed_sft_dataset,
    get_response_log_probs,
    iterate_batches,
)
from alignkit.functional import (
    compute_grpo_clip_loss,
    compute_grpo_no_clip_loss,
    compute_gspo_loss,
    compute_naive_policy_gradient_loss,
    group_advantages,
    masked_normalize,
)
from alignkit.kits.builtin.evals._mmlu import parse_mmlu_response
from alignkit.kits.builtin.evals._numbers import parse_gsm8k_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "aggregate_loss_across_microbatch",
    "compute_group_normalized_rewards",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "compute_rollout_rewards",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "grpo_train_step",
    "iterate_batches",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "tokenize_prompt_and_output",
]

RewardFunction = Callable[[str, str], Mapping[str, float]]
Baseline = Literal["mean", "none"]
Normalizer = Literal["std", "none", "mean"]
Reweighting = Literal["none", "noclip", "grpo", "gspo"]
# what each reweighting is computed from, beside the log-probs of the policy
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "noclip": ("old_log_probs",),
    "grpo": ("old_log_probs", "cliprange"),
    "gspo": ("old_log_probs", "cliprange", "response_mask"),
}


def tokenize_prompt_and_output(
    prompt_strs: Sequence[str],
    output_strs: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Tensor]:
    """As in 2025, but without special tokens: no BOS before the prompt."""
    return sequences.tokenize_prompt_and_output(
        prompt_strs, output_strs, tokenizer, add_special_tokens=False
    )


def compute_rollout_rewards(
    reward_fn: RewardFunction,
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
) -> tuple[Tensor, dict[str, float]]:
    """Rewards (N,) of responses, and the means of `reward`, `format_reward` and
    `answer_reward`.
    """
    scores = [
        reward_fn(*pair)
        for pair in zip(rollout_responses, repeated_ground_truths, strict=True)
    ]
    rewards = torch.tensor([score["reward"] for score in scores], dtype=torch.float32)
    names = ("reward", "format_reward", "answer_reward")
    return rewards, {
        name: sum(float(score[name]) for score in scores) / len(scores)
        for name in names
    }


def compute_group_normalized_rewards(
    raw_rewards: Tensor,
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: Normalizer = "std",
) -> tuple[Tensor, dict[str, float]]:
    """Advantages (N,) of rewards (N,): see `functional.group_advantages`. The metadata
    say how the rewards lie, and the share of groups that teach nothing.
    """
    advantages = group_advantages(
        raw_rewards,
        group_size,
        baseline=baseline,
        scale=advantage_normalizer,
        eps=advantage_eps,
    )
    groups = raw_rewards.view(-1, group_size)
    equal = groups.amax(dim=1) == groups.amin(dim=1)
    return advantages, {
        "reward_mean": raw_rewards.mean().item(),
        "reward_min": raw_rewards.min().item(),
        "reward_max": raw_rewards.max().item(),
        "equal_groups": equal.float().mean().item(),
    }


def compute_policy_gradient_loss(
    raw_rewards_or_advantages: Tensor,
    policy_log_probs: Tensor,
    importance_reweighting_method: Reweighting = "none",
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
    response_mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Per-token loss (B, T) of rewards or advantages (B,) or (B, 1), and metadata:
    `clipped` and `ratio`, (B, T), where there is a ratio.

    ValueError when the method is unknown or what it needs is missing.
    """
    method = importance_reweighting_method
    given = {
        "old_log_probs": old_log_probs,
        "cliprange": cliprange,
        "response_mask": response_mask,
    }
    if method not in _NEEDS:
        raise ValueError(
            f"importance_reweighting_method {method!r} is unknown; known:"
            f" {', '.join(_NEEDS)}"
        )
    for name in _NEEDS[method]:
        if given[name] is None:
            raise ValueError(f"importance_reweighting_method {method!r} needs {name}")
    weights = raw_rewards_or_advantages.view(-1, 1)
    if method == "none":
        return compute_naive_policy_gradient_loss(weights, policy_log_probs), {}
    assert old_log_probs is not None
    if method == "noclip":
        return compute_grpo_no_clip_loss(weights, policy_log_probs, old_log_probs)
    assert cliprange is not None
    if method == "grpo":
        return compute_grpo_clip_loss(
            weights, policy_log_probs, old_log_probs, cliprange
        )
    assert response_mask is not None
    return compute_gspo_loss(
        weights, policy_log_probs, old_log_probs, response_mask, cliprange
    )


def aggregate_loss_across_microbatch(
    per_token_policy_gradient_loss: Tensor,
    mask: Tensor,
    loss_normalization: Literal["sequence", "constant"] = "sequence",
    normalization_constant: float | None = None,
) -> Tensor:
    """A scalar: the mean over sequences of each one's mean over its tokens, or the sum
    over all tokens divided by a constant.

    The constant divides the sum of the whole batch. `normalize: constant` of a recipe
    divides by the number of sequences as well: a recipe's constant L is B L here.
    """
    if loss_normalization == "sequence":
        tokens = mask.bool().sum(-1).clamp(min=1)
        return (
            masked_normalize(per_token_policy_gradient_loss, mask, -1) / tokens
        ).mean()
    if normalization_constant is None:
        raise ValueError("loss_normalization 'constant' needs normalization_constant")
    return masked_normalize(
        per_token_policy_gradient_loss, mask, None, normalization_constant
    )


def grpo_train_step(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    gradient_accumulation_steps: int,
    max_grad_norm: float | None,
    reward_fn: RewardFunction,
    repeated_prompts: Sequence[str],
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: Normalizer = "std",
    importance_reweighting_method: Reweighting = "none",
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
    loss_normalization: Literal["sequence", "constant"] = "sequence",
    normalization_constant: float | None = None,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """One optimizer step on N rollouts, in microbatches of equally many rows.

    Rows whose advantage is 0 are not passed through the model: every loss here is a
    multiple of the advantage, and each divisor counts them as if they were. Returns the
    loss of the whole batch and metadata; gradients are gone afterwards.
    """
    rewards, metadata = compute_rollout_rewards(
        reward_fn, rollout_responses, repeated_ground_truths
    )
    advantages, found = compute_group_normalized_rewards(
        rewards, group_size, baseline, advantage_eps, advantage_normalizer
    )
    if len(rewards) % gradient_accumulation_steps:
        raise ValueError(
            f"{len(rewards)} rollouts are no multiple of the"
            f" {gradient_accumulation_steps} gradient_accumulation_steps"
        )
    batch = tokenize_prompt_and_output(repeated_prompts, rollout_responses, tokenizer)
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    noted: dict[str, list[Tensor]] = {}
    rows = len(rewards) // gradient_accumulation_steps
    optimizer.zero_grad(set_to_none=True)
    for part in torch.arange(len(rewards)).split(rows):
        kept = part[advantages[part] != 0]
        if not len(kept):
            continue
        mask = batch["response_mask"][kept].to(device)
        result = get_response_log_probs(
            model,
            batch["input_ids"][kept].to(device),
            batch["labels"][kept].to(device),
            return_token_entropy=True,
        )
        per_token, parts = compute_policy_gradient_loss(
            advantages[kept].to(device),
            result["log_probs"],
            importance_reweighting_method,
            None if old_log_probs is None else old_log_probs[kept].to(device),
            cliprange,
            mask,
        )
        loss = aggregate_loss_across_microbatch(
            per_token, mask, loss_normalization, normalization_constant
        )
        if loss_normalization == "sequence":
            loss = loss * len(kept) / len(rewards)
        loss.backward()
        total += loss.detach()
        for name, value in {"entropy": result["token_entropy"], **parts}.items():
            noted.setdefault(name, []).append(value[mask].float())
    limit = float("inf") if max_grad_norm is None else max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    means = {name: torch.cat(values).mean() for name, values in noted.items()}
    return total, {**metadata, **found, **means, "gradient_norm": norm}
