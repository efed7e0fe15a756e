"""The tensor functions that losses, advantages and their proofs use, from scratch and
pure, under the names of the Stanford CS336 alignment assignment; `course` holds the
rest of them.

Shapes: B sequences, T tokens of the padded sequence, V words, N = prompts x G
completions. A mask may be of any dtype; a value is counted where its mask is not zero.
Padding is never read: it may hold anything, NaN too.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Literal

import torch
from torch import Tensor


def compute_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): (..., V) -> (...), in float32 at least. A
    logit may be -inf.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # or logsumexp rounds away what large logits differ in
    logits = logits - logits.amax(dim=-1, keepdim=True)
    log_probs = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    # p log p is 0 at p = 0, not 0 * -inf
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    return -(log_probs.exp() * finite).sum(dim=-1)


def masked_normalize(
    tensor: Tensor,
    mask: Tensor,
    dim: int | None = None,
    normalize_constant: float = 1.0,
) -> Tensor:
    """Sum of the masked values over `dim` (None: all) divided by a constant, as in Dr.
    GRPO (arXiv:2503.20783).
    """
    masked = tensor.masked_fill(~mask.bool(), 0)
    return masked.sum(dim) / normalize_constant


def masked_mean(tensor: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the masked values over `dim` (None: all). NaN where nothing is masked in,
    as a mean of nothing is.
    """
    return masked_normalize(tensor, mask, dim) / mask.bool().sum(dim)


def group_normalize(
    rewards: Tensor, group_size: int, eps: float = 1e-6, normalize_by_std: bool = True
) -> Tensor:
    """Advantages (N,) of rewards (N,) within their group of G: minus the mean, over the
    unbiased std + eps.

    GRPO (arXiv:2402.03300) with the std, Dr. GRPO (arXiv:2503.20783) without. See
    `group_advantages`.
    """
    scale: Literal["std", "none"] = "std" if normalize_by_std else "none"
    return group_advantages(rewards, group_size, eps=eps, scale=scale)


def group_advantages(
    rewards: Tensor,
    group_size: int,
    *,
    baseline: Literal["mean", "none"] = "mean",
    scale: Literal["std", "mean", "none"] = "std",
    eps: float = 1e-6,
) -> Tensor:
    """Advantages (N,) of rewards (N,) within their group of G: minus the mean or as they
    are, over the unbiased std + eps, the mean + eps (MaxRL) or nothing.

    A NaN reward (a completion that nothing could score) counts in no statistic and
    stays NaN. A group with one score has advantage 0 beside the mean.
    """
    groups = rewards.view(-1, group_size)
    mean = groups.nanmean(dim=1, keepdim=True)
    found = groups - mean if baseline == "mean" else groups
    if scale == "std":
        count = (~groups.isnan()).sum(dim=1, keepdim=True)
        squares = (groups - mean).square().nansum(dim=1, keepdim=True)
        found = found / ((squares / (count - 1).clamp(min=1)).sqrt() + eps)
    elif scale == "mean":
        found = found / (mean + eps)
    return found.reshape(-1)


def compute_naive_policy_gradient_loss(
    raw_rewards_or_advantages: Tensor, policy_log_probs: Tensor
) -> Tensor:
    """REINFORCE per token: -A log p. (B, 1), (B, T) -> (B, T)."""
    return -raw_rewards_or_advantages * policy_log_probs


def compute_grpo_clip_loss(
    advantages: Tensor,
    policy_log_probs: Tensor,
    old_log_probs: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO/PPO clipped loss per token: -min(r A, clip(r, 1 - c, 1 + h) A) with r = p /
    p_old and h the upper range, where it differs (DAPO).

    `advantages` (B, 1), log-probs (B, T); -> (B, T) and `clipped` (B, T) bool, True
    where the clipped side is the smaller one, `ratio` (B, T) without gradient.
    DeepSeekMath, arXiv:2402.03300, equation 3; DAPO, arXiv:2503.14476.
    """
    high = cliprange if cliprange_high is None else cliprange_high
    ratio = (policy_log_probs - old_log_probs).exp()
    free = ratio * advantages
    clipped = ratio.clamp(1 - cliprange, 1 + high) * advantages
    return -torch.minimum(free, clipped), {
        "clipped": clipped < free,
        "ratio": ratio.detach(),
    }


def compute_gspo_loss(
    advantages: Tensor,
    policy_log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped loss with the ratio of sequences: the geometric mean of the ratios of
    a response's tokens, the same in each of them.

    Shapes as in `compute_grpo_clip_loss`, mask (B, T). GSPO, arXiv:2507.18071,
    equation 5.
    """
    gaps = masked_normalize(policy_log_probs - old_log_probs, mask, dim=-1)
    mean = (gaps / mask.bool().sum(-1).clamp(min=1)).unsqueeze(-1)  # (B, 1)
    loss, parts = compute_grpo_clip_loss(
        advantages, mean, torch.zeros_like(mean), cliprange, cliprange_high
    )
    shape = policy_log_probs.shape
    return loss.expand(shape), {
        name: each.expand(shape) for name, each in parts.items()
    }


def compute_grpo_no_clip_loss(
    advantages: Tensor, policy_log_probs: Tensor, old_log_probs: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The importance-weighted loss per token without a clip: -r A. Shapes as in
    `compute_grpo_clip_loss`.
    """
    ratio = (policy_log_probs - old_log_probs).exp()
    return -ratio * advantages, {"ratio": ratio.detach()}


def dpo_loss(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float,
) -> Tensor:
    """Sigmoid loss of direct preference optimisation per pair, all (B,):
    arXiv:2305.18290, equation 7.
    """
    margin = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    return -torch.nn.functional.logsigmoid(beta * margin)


def __getattr__(name: str) -> object:
    """The assignment's other functions stood here in 0.1, and still answer."""
    course = importlib.import_module("alignkit.course")
    if name not in course.__all__:
        raise AttributeError(f"module 'alignkit.functional' has no attribute {name!r}")
    text = f"alignkit.functional.{name} is now alignkit.course.{name}"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(course, name)
