"""Proof that an advantage does what its definition says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alignkit.conformance.check import (
    Check,
    Test,
    needed,
    outcome,
    picklable,
    unless,
)
from alignkit.train.objective import Objective
from alignkit.types import Advantage, Loss

# an objective holds both; this one is never called
_LOSS = Loss("none", needed, ("grpo",))
_REWARDS = (0.2, 0.5, 0.0, 0.4, 1.0, 0.0, 0.0, 1.0, 0.3, 0.1, 0.8, 0.2)


def check_advantage(advantage: Advantage) -> list[Check]:
    """All checks of an advantage with its default options."""
    function = advantage.function
    if missing := needed(function):
        return [Check("advantage", advantage.name, "options", None, missing)]

    def result(check: str, test: Test) -> Check:
        return outcome("advantage", advantage.name, check, test)

    return [
        result("picklable", lambda: picklable(function)),
        result("values", lambda: _finite(advantage)),
        result("groups apart", lambda: _groups_apart(function)),
        result("order", lambda: _ordered(function)),
        result("direction", lambda: _rises_with_rewards(function)),
        result("unbiased std", lambda: _unbiased(function)),
    ]


def _finite(advantage: Advantage) -> str | None:
    """Finite with equal rewards, a group of one, huge rewards and rewards that are NaN;
    see `Objective.advantages`.
    """
    nan = math.nan
    for rewards, size in (
        (_REWARDS, 4),
        ([1.0] * 4, 4),
        ([1.0, 0.0], 1),
        ([1e8, -1e8, 0.0, 1.0], 4),
        ([1.0, nan, 0.0, 0.5], 4),
        ([nan, nan, 1.0, nan], 4),
        ([nan] * 4, 4),
    ):
        Objective(_LOSS, advantage=advantage).advantages(torch.tensor(rewards), size)
    return None


def _groups_apart(function: Callable[..., Tensor]) -> str | None:
    rewards = torch.tensor(_REWARDS)
    changed = rewards.clone()
    changed[4:8] = torch.tensor([3.0, 1.0, 2.0, 9.0])
    same = torch.allclose(function(rewards, 4)[:4], function(changed, 4)[:4])
    return unless(same, "another group's rewards change a group's advantages")


def _ordered(function: Callable[..., Tensor]) -> str | None:
    rewards = torch.tensor(_REWARDS)
    order = torch.tensor([2, 0, 3, 1])
    moved = torch.cat([rewards[:4][order], rewards[4:]])
    same = torch.allclose(
        function(rewards, 4)[:4][order], function(moved, 4)[:4], atol=1e-6
    )
    return unless(
        same, "the order of completions within a group changes their advantages"
    )


def _rises_with_rewards(function: Callable[..., Tensor]) -> str | None:
    rewards = torch.tensor(_REWARDS)
    order = rewards.view(-1, 4).argsort(dim=1)
    steps = function(rewards, 4).view(-1, 4).gather(1, order).diff(dim=1)
    if (steps < -1e-6).any():
        return "a higher reward has a lower advantage than another of its group"
    rising = bool((steps > 1e-6).any())
    return unless(rising, "all advantages are equal: nothing is learnt")


def _unbiased(function: Callable[..., Tensor]) -> str | None:
    """Advantages that do not change with the scale of the rewards were divided by a
    deviation: by the right one?
    """
    rewards = torch.tensor(_REWARDS, dtype=torch.float64)
    plain, scaled = function(rewards, 4), function(rewards * 1e3, 4)
    if not torch.allclose(plain, scaled, rtol=1e-3, atol=1e-4):
        return None
    deviation = plain.view(-1, 4).std(dim=1)
    biased = torch.full_like(deviation, math.sqrt(4 / 3))
    return unless(
        not torch.allclose(deviation, biased, rtol=1e-3),
        "divides by the biased standard deviation (n); the definition has the unbiased"
        " one (n - 1)",
    )
