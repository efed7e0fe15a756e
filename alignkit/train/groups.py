"""What a batch of rollouts says of its groups and responses, beside the rewards.

Shapes: N completions of all processes, of groups of `size` that lie beside each other.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

NGRAM = 4  # tokens of a repetition


def response_facts(completion_ids: Sequence[Sequence[int]], correct: Tensor) -> Tensor:
    """(N, 4) of each completion: tokens, share of its 4-grams that were there before,
    whether it is correct, and a number that equal completions share.
    """
    facts = [
        [float(len(ids)), repetition(ids), 0.0, float(_number(ids))]
        for ids in completion_ids
    ]
    table = torch.tensor(facts, dtype=torch.float64, device=correct.device)
    table[:, 2] = correct
    return table


def repetition(ids: Sequence[int]) -> float:
    """The share of 4-grams of tokens that have been there before; 0 of short ones."""
    grams = [tuple(ids[n : n + NGRAM]) for n in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _number(ids: Sequence[int]) -> int:
    return zlib.crc32(array("q", ids).tobytes())


def group_numbers(facts: Tensor, rewards: Tensor, size: int) -> dict[str, float]:
    """The numbers of a batch, from `response_facts` (N, 4) and rewards (N,), NaN where
    nothing could score.
    """
    lengths, repeated, correct, numbers = facts.unbind(dim=1)
    right = correct.view(-1, size)
    distinct = [len(set(group)) for group in numbers.view(-1, size).tolist()]
    found = {
        "response_length_p50": lengths.quantile(0.5).item(),
        "response_length_p95": lengths.quantile(0.95).item(),
        "repetition": repeated.mean().item(),
        "groups_all_right": right.min(dim=1).values.mean().item(),
        "groups_all_wrong": (1 - right.max(dim=1).values).mean().item(),
        f"pass@{size}": right.max(dim=1).values.mean().item(),
        "distinct_responses": sum(distinct) / len(distinct),
    }
    if size > 1:
        spread = _deviations(rewards.view(-1, size))
        found["group_std"] = found["reward_std"] = spread.mean().item()
        # TRL's name; under some settings it counts from the batch's deviation
        still = torch.isclose(spread, torch.zeros_like(spread))
        found["frac_reward_zero_std"] = still.float().mean().item()
    return found


def _deviations(groups: Tensor) -> Tensor:
    """(groups,) unbiased standard deviations of what could be scored; 0 of one."""
    known = ~groups.isnan()
    count = known.sum(dim=1)
    gaps = groups - groups.nanmean(dim=1, keepdim=True)
    squares = (gaps**2).nansum(dim=1) / (count - 1).clamp(min=1)
    return squares.sqrt()
