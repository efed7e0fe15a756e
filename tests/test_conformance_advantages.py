"""What `align plugins check` sees in advantages: every planted fault, and none in those
that are right.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from alignkit import kits, plugins
from alignkit.conformance.advantages import check_advantage
from alignkit.types import Advantage

Function = Callable[[Tensor, int], Tensor]


def grouped(form: Callable[[Tensor], Tensor]) -> Function:
    """An advantage by what it makes of (groups, size)."""
    return lambda rewards, size: form(rewards.view(-1, size)).flatten()


def nanvar(rows: Tensor, correction: int = 1) -> Tensor:
    gaps = rows - rows.nanmean(dim=1, keepdim=True)
    known = (~rows.isnan()).sum(dim=1, keepdim=True)
    divisor = (known - correction).clamp(min=1)
    return (gaps**2).nansum(dim=1, keepdim=True) / divisor


def centred(rows: Tensor) -> Tensor:
    return rows - rows.nanmean(dim=1, keepdim=True)


def others(rows: Tensor, divisor: int) -> Tensor:
    known = (~rows.isnan()).sum(dim=1, keepdim=True)
    rest = rows.nansum(dim=1, keepdim=True) - rows.nan_to_num(0)
    return rest / (known + divisor).clamp(min=1)


def std(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: centred(rows) / (nanvar(rows).sqrt() + 1e-6))(
        rewards, size
    )


def leave_one_out(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: rows - others(rows, -1))(rewards, size)


def raw(rewards: Tensor, size: int) -> Tensor:
    return rewards.clone()


def maximum_likelihood(rewards: Tensor, size: int) -> Tensor:
    """MaxRL: the gap to the mean, by the mean."""

    def form(rows: Tensor) -> Tensor:
        return centred(rows) / (rows.nanmean(dim=1, keepdim=True).abs() + 1e-6)

    return grouped(form)(rewards, size)


def four_alike(rewards: Tensor, size: int) -> Tensor:
    groups = rewards.view(-1, 4 if len(rewards) % 4 == 0 else size)
    return centred(groups).flatten()


def by_variance(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: centred(rows) / (nanvar(rows) + 1e-6))(rewards, size)


def biased(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: centred(rows) / (nanvar(rows, 0).sqrt() + 1e-6))(
        rewards, size
    )


def wrong_divisor(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: rows - others(rows, 0))(rewards, size)


def nan_as_zero(rewards: Tensor, size: int) -> Tensor:
    rows = rewards.nan_to_num(0).view(-1, size)
    return (rows - rows.mean(dim=1, keepdim=True)).flatten()


def lower_is_better(rewards: Tensor, size: int) -> Tensor:
    return -std(rewards, size)


def times_the_size(rewards: Tensor, size: int) -> Tensor:
    return std(rewards, size) * size


def times_std(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: centred(rows) * nanvar(rows).sqrt())(rewards, size)


def large_eps(rewards: Tensor, size: int) -> Tensor:
    return grouped(lambda rows: centred(rows) / (nanvar(rows).sqrt() + 1.0))(
        rewards, size
    )


def below_the_best(rewards: Tensor, size: int) -> Tensor:
    return grouped(
        lambda rows: rows - rows.nan_to_num(-9.0).max(dim=1, keepdim=True).values
    )(rewards, size)


def outcomes(function: Function) -> dict[str, bool | None]:
    return {c.check: c.ok for c in check_advantage(Advantage("mine", function))}


@pytest.mark.parametrize(
    ("function", "check"),
    [
        (four_alike, "groups apart"),
        (by_variance, "scale"),
        (biased, "unbiased std"),
        (wrong_divisor, "baseline"),
        (lower_is_better, "direction"),
        (times_the_size, "group size"),
        (times_std, "scale"),
        (large_eps, "scale"),
    ],
)
def test_a_planted_fault_fails(function: Function, check: str):
    assert outcomes(function)[check] is False


def test_what_counts_nan_as_0_is_noted():
    checks = outcomes(nan_as_zero)
    assert checks.pop("unscored") is None
    assert all(checks.values())


def test_what_learns_from_one_side_of_its_baseline_only_is_noted():
    """Learning from bad completions only is published, and so no fault."""
    checks = outcomes(below_the_best)
    assert checks.pop("both signs") is None
    assert all(checks.values()), checks


@pytest.mark.parametrize("function", [std, leave_one_out, raw, maximum_likelihood])
def test_a_right_advantage_passes_without_a_word(function: Function):
    assert all(outcomes(function).values()), outcomes(function)


def test_the_advantages_that_come_along_pass():
    registry = plugins.load([kits.builtin()])
    for plugin in registry.all("advantage"):
        noted = [c for c in check_advantage(plugin.value) if not c.ok]
        apart = ["groups apart"] if plugin.value.across_groups else []
        assert [c.check for c in noted if c.ok is None] == apart
        assert [c for c in noted if c.ok is False] == []


def each_reward(rewards: Tensor, size: int, weights: Tensor) -> Tensor:
    """Every reward standardised in its group, then added up by its weight."""
    columns = zip(rewards.T, weights, strict=True)
    return sum(weight * std(column, size) for column, weight in columns)


def over_the_batch(rewards: Tensor, size: int) -> Tensor:
    """REINFORCE++: centred in the group, divided by the deviation of the batch."""
    gaps = centred(rewards.view(-1, size)).flatten()
    known = gaps[~gaps.isnan()]
    return gaps / (known.std(correction=int(len(known) > 1)) + 1e-6)


def test_an_advantage_that_sees_each_reward_passes():
    checks = check_advantage(Advantage("gdpo", each_reward, by_reward=True))
    assert all(c.ok for c in checks), [c for c in checks if not c.ok]


def test_one_that_divides_over_the_batch_passes_where_it_says_so():
    said = check_advantage(Advantage("r++", over_the_batch, across_groups=True))
    assert {c.check for c in said if not c.ok} == {"groups apart"}
    assert next(c for c in said if c.check == "groups apart").ok is None
    assert outcomes(over_the_batch)["groups apart"] is False
