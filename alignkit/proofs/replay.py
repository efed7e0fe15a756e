"""Two accounts of the same optimizer steps: what was logged, and what was computed
again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of time, and of what happened beside the step.
_CLOCK = frozenset({"time", "seconds", "tokens"})
_ROW_CLOCK = frozenset({"seconds"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One quantity that is not what was logged; `place` is its step and, of a rollout,
    its group and sample.
    """

    place: str
    quantity: str
    logged: Any
    replayed: Any

    @property
    def relative(self) -> float | None:
        """The gap by the size of what was logged; None of what is no number."""
        one, other = self.logged, self.replayed
        if not all(isinstance(v, int | float) for v in (one, other)):
            return None
        return abs(one - other) / (abs(one) or 1.0)


@dataclass(slots=True)
class Account:
    """What was compared of a run."""

    steps: list[int]
    numbers: int = 0
    rollouts: int = 0
    weights: int = 0  # tensors of the checkpoint after the last step
    differences: list[Difference] | None = None

    @property
    def equal(self) -> bool:
        """To the bit."""
        return not self.differences


def compare_metrics(
    step: int, logged: Mapping[str, Any], replayed: Mapping[str, Any]
) -> tuple[int, list[Difference]]:
    """The numbers of a row of metrics.jsonl that both have, but for times and evals."""
    count, differences = 0, []
    for name in logged:
        told = name in _CLOCK or "seconds" in name or name.startswith("eval/")
        if told or name == "train/step_time" or name not in replayed:
            continue
        count += 1
        if not same(logged[name], replayed[name]):
            gap = Difference(f"step {step}", name, logged[name], replayed[name])
            differences.append(gap)
    return count, differences


def compare_rollouts(
    step: int,
    logged: Sequence[Mapping[str, Any]],
    replayed: Sequence[Mapping[str, Any]],
) -> Iterator[Difference]:
    """Rows of rollouts by their order, field by field."""
    if len(logged) != len(replayed):
        yield Difference(f"step {step}", "rollouts", len(logged), len(replayed))
    for one, other in zip(logged, replayed, strict=False):
        place = f"step {step}, group {one.get('group')}, sample {one.get('sample')}"
        for name, value in one.items():
            if name not in _ROW_CLOCK and not same(value, other.get(name)):
                yield Difference(place, name, value, other.get(name))


def same(one: Any, other: Any) -> bool:
    """Equal, numbers that are not numbers too."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other)
