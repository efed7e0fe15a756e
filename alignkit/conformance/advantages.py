"""Proof that an advantage does what its definition says.

Shapes: N rewards of groups of `group_size` that lie beside each other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from alignkit.conformance.check import (
    Check,
    Note,
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
SIZES = (4, 2, 6)  # of groups
# several groups of each size, none of them without variance
_REWARDS = (0.2, 0.5, 0.0, 0.4, 1.0, 0.0, 0.0, 1.0, 0.3, 0.1, 0.8, 0.2)
_SCALE = 1e3  # so large that what is added to a divisor does not count
_SHIFT = 10.0
_NEARLY = 0.95
_REPEATS = 4  # of the rewards in one large group, where n - 1 is nearly n
Function = Callable[[Tensor, int], Tensor]


def check_advantage(advantage: Advantage) -> list[Check]:
    """All checks of an advantage with its default options."""
    function = advantage.function
    if advantage.by_reward:
        function = functools.partial(_of_one, function)
    if missing := needed(advantage.function):
        return [Check("advantage", advantage.name, "options", None, missing)]

    def result(check: str, test: Test) -> Check:
        return outcome("advantage", advantage.name, check, test)

    def of_each_size(test: Callable[[Function, int], str | None]) -> Test:
        return functools.partial(_each_size, test, function)

    text = "declares that it looks beyond its group"
    apart = [Check("advantage", advantage.name, "groups apart", None, text)]
    if not advantage.across_groups:
        apart = [result("groups apart", of_each_size(_groups_apart))]
    return [
        result("picklable", lambda: picklable(advantage.function)),
        result("values", lambda: _finite(advantage)),
        *apart,
        result("order", of_each_size(_ordered)),
        result("direction", of_each_size(_rises_with_rewards)),
        result("unbiased std", of_each_size(_unbiased)),
        result("scale", of_each_size(_scale)),
        result("group size", lambda: _group_size(function)),
        result("baseline", of_each_size(_baseline)),
        result("both signs", lambda: _both_signs(function, max(SIZES))),
        result("unscored", of_each_size(_unscored)),
    ]


def _of_one(
    function: Callable[[Tensor, int, Tensor], Tensor], rewards: Tensor, size: int
) -> Tensor:
    """An advantage of several rewards, given one."""
    return function(rewards[:, None], size, rewards.new_ones(1))


def _each_size(
    test: Callable[[Function, int], str | None], function: Function
) -> str | None:
    """The first fault over all group sizes; a note only where there is none."""
    notes = []
    for size in SIZES:
        wrong = test(function, size)
        if isinstance(wrong, Note):
            notes.append(wrong)
        elif wrong:
            return f"in groups of {size}: {wrong}"
    return notes[0] if notes else None


def _rewards(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(_REWARDS, dtype=dtype)


def _finite(advantage: Advantage) -> str | None:
    """Finite with equal rewards, a group of one, huge rewards and rewards that are NaN;
    see `Objective.advantages`.
    """
    nan = math.nan
    for rewards, size in (
        (_REWARDS, 4),
        ([1.0] * 4, 4),
        ([1.0, 0.0], 1),
        ([1e8, 0.0 if advantage.nonnegative else -1e8, 0.0, 1.0], 4),
        ([1.0, nan, 0.0, 0.5], 4),
        ([nan, nan, 1.0, nan], 4),
        ([nan] * 4, 4),
    ):
        Objective(_LOSS, advantage=advantage).advantages(torch.tensor(rewards), size)
    return None


def _groups_apart(function: Function, size: int) -> str | None:
    rewards = _rewards()
    changed = rewards.clone()
    changed[size : 2 * size] = torch.linspace(1, 9, size, dtype=rewards.dtype) ** 2
    before, after = function(rewards, size), function(changed, size)
    others = torch.ones(len(rewards), dtype=torch.bool)
    others[size : 2 * size] = False
    return unless(
        torch.allclose(before[others], after[others]),
        "another group's rewards change a group's advantages",
    )


def _ordered(function: Function, size: int) -> str | None:
    rewards = _rewards()
    order = torch.arange(size).roll(1)
    moved = torch.cat([rewards[:size][order], rewards[size:]])
    same = torch.allclose(
        function(rewards, size)[:size][order], function(moved, size)[:size], atol=1e-6
    )
    return unless(
        same, "the order of completions within a group changes their advantages"
    )


def _rises_with_rewards(function: Function, size: int) -> str | None:
    rewards = _rewards()
    order = rewards.view(-1, size).argsort(dim=1, stable=True)
    steps = function(rewards, size).view(-1, size).gather(1, order).diff(dim=1)
    if (steps < -1e-6).any():
        return "a higher reward has a lower advantage than another of its group"
    rising = bool((steps > 1e-6).any())
    return unless(rising, "all advantages are equal: nothing is learnt")


def _degree(function: Function, size: int) -> float:
    """How advantages grow with rewards that are multiplied: 1 in proportion, 0 not at
    all; NaN where no one power says it.
    """
    # well away from where what is added to a divisor counts
    rewards = _rewards() * _SCALE
    plain, scaled = function(rewards, size), function(rewards * _SCALE, size)
    moved = plain.abs() > 1e-9
    powers = (scaled[moved] / plain[moved]).abs().log() / math.log(_SCALE)
    if not len(powers) or powers.max() - powers.min() > 1e-2:
        return math.nan
    return round(powers.mean().item(), 2)


def _unbiased(function: Function, size: int) -> str | None:
    """Advantages that do not change with the scale of the rewards were divided by a
    deviation: by the right one?
    """
    if _degree(function, size) != 0:
        return None
    deviation = function(_rewards() * _SCALE, size).view(-1, size).std(dim=1)
    biased = torch.full_like(deviation, math.sqrt(size / (size - 1)))
    return unless(
        not torch.allclose(deviation, biased, rtol=1e-3),
        "divides by the biased standard deviation (n); the definition has the unbiased"
        " one (n - 1)",
    )


def _scale(function: Function, size: int) -> str | None:
    """Rewards in other units leave advantages as they are, or change them alike."""
    degree = _degree(function, size)
    if degree == 0:
        plain, scaled = function(_rewards(), size), function(_rewards() * _SCALE, size)
        share = float(plain.abs().max() / scaled.abs().max())
        return unless(
            share > _NEARLY,
            f"rewards between 0 and 1 give {share:.2g} of the advantages that larger"
            " ones give: what is added to the divisor outweighs it",
        )
    if degree == 1:
        return None
    if degree > 1:
        return (
            f"advantages grow with the rewards to the power of {degree:g}: they are"
            " multiplied by the deviation"
        )
    if degree < 0:
        return (
            "rewards ten times as large give smaller advantages: they are divided by"
            " the variance, not by its root"
        )
    return Note("advantages follow the scale of the rewards by no power of it")


def _group_size(function: Function) -> str | None:
    """A group with every reward twice as often has the same advantages, but for n - 1 in
    place of n.
    """
    rewards = _rewards().repeat(_REPEATS)
    one = function(rewards, len(rewards)).abs().max()
    both = function(rewards.repeat(2), 2 * len(rewards)).abs().max()
    grown = float(both / one)
    return unless(
        not math.isfinite(grown) or _NEARLY < grown < 1 / _NEARLY,
        f"in a group twice as large, with each reward twice, the advantages are"
        f" {grown:.3g} times as large: the mean over sequences counts the group's size",
    )


def _both_signs(function: Function, size: int) -> str | None:
    """Something is better than a baseline, and something worse."""
    rewards = _rewards()
    found = function(rewards, size)
    if torch.allclose(function(rewards + _SHIFT, size), found + _SHIFT):
        return None  # there is none
    for sign, word in ((1, "above"), (-1, "below")):
        if not (sign * found > 1e-9).any():
            return Note(
                f"no completion has an advantage {word} 0: it is learnt from one side"
                " of the baseline only"
            )
    return None


def _baseline(function: Function, size: int) -> str | None:
    """The same added to every reward of a group: a baseline takes it away whole, and no
    baseline leaves it whole.
    """
    rewards = _rewards() * _SCALE
    moved = function(rewards + _SHIFT * _SCALE, size) - function(rewards, size)
    moved /= _SHIFT * _SCALE
    if _degree(function, size) == 1:
        none, whole = (torch.full_like(moved, part) for part in (0.0, 1.0))
        return unless(
            torch.allclose(moved, none, atol=1e-4)
            or torch.allclose(moved, whole, atol=1e-4),
            "the same added to every reward of a group changes the advantages by"
            f" {moved.abs().max():.2g} of it: the baseline is no mean (of the others,"
            " divided by n - 1; of all, by n)",
        )
    return None


def _unscored(function: Function, size: int) -> str | None:
    """NaN, for what nothing could score, is left out of its group's statistics."""
    rewards = _rewards()
    rewards[0] = math.nan
    others = function(rewards, size)[1:size]
    as_zero = function(rewards.nan_to_num(0.0), size)[1:size]
    without = function(rewards[1:size], size - 1)
    if torch.allclose(others, as_zero) and not torch.allclose(others, without):
        return Note(
            "counts what nothing could score (NaN) as a reward of 0, which shifts the"
            " advantages of its group"
        )
    return None
