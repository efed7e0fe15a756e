"""Group rewards, policy gradients and their microbatch steps.

Shapes: B sequences, T tokens of the padded sequence, V words, N = prompts x G
completions. A mask may be of any dtype; a value is counted where its mask is not zero.
Padding is never read: it may hold anything, NaN too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from alignkit.functional import (
    compute_grpo_clip_loss,
    compute_grpo_no_clip_loss,
    compute_naive_policy_gradient_loss,
    group_normalize,
    masked_normalize,
)

# what each loss is computed from
_NEEDS = {
    "no_baseline": ("raw_rewards",),
    "reinforce_with_baseline": ("advantages",),
    "grpo_clip": ("advantages", "old_log_probs", "cliprange"),
    "grpo_no_clip": ("advantages", "old_log_probs"),
}
POLICY_GRADIENT_LOSSES = tuple(_NEEDS)


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
    values = {
        "raw_rewards": raw_rewards,
        "advantages": advantages,
        "old_log_probs": old_log_probs,
        "cliprange": cliprange,
    }
    if loss_type not in _NEEDS:
        raise ValueError(
            f"loss_type {loss_type!r} is unknown; known: {', '.join(_NEEDS)}"
        )
    for name in _NEEDS[loss_type]:
        if values[name] is None:
            raise ValueError(f"loss_type {loss_type!r} needs {name}")
    if loss_type == "no_baseline":
        return compute_naive_policy_gradient_loss(raw_rewards, policy_log_probs), {}
    if loss_type == "reinforce_with_baseline":
        return compute_naive_policy_gradient_loss(advantages, policy_log_probs), {}
    if loss_type == "grpo_no_clip":
        return compute_grpo_no_clip_loss(advantages, policy_log_probs, old_log_probs)
    assert cliprange is not None
    return compute_grpo_clip_loss(
        advantages, policy_log_probs, old_log_probs, cliprange
    )


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
