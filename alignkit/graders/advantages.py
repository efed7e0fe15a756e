"""The advantages that a run would have had with other rewards.

Shapes: N completions of a step, in groups of G that lie beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit import plugins
from alignkit.errors import InputError
from alignkit.train.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.plugins import Registry
    from alignkit.records import Record
    from alignkit.run.rows import Row

Advantages = Callable[["Tensor", int], "Tensor"]  # of rewards (N,) and G
TRL_EPS = 1e-4  # beside the deviation that TRL divides by


@dataclass(frozen=True)
class Recomputed:
    """How a run made advantages of rewards, done again.

    `reward` is the run's that says what is right: another grader takes its place, by
    its weight.
    """

    reward: str
    weight: float
    function: Advantages

    @classmethod
    def of(cls, record: Record, registry: Registry) -> Recomputed:
        """That of a run of GRPO or RLOO.

        Raises:
            InputError: the rewards alone do not say what the advantages were.
        """
        stated = record.recipe.get("rewards")
        if record.method not in ("grpo", "rloo") or not isinstance(stated, dict):
            raise InputError(f"{record.method} has no advantages of a group's rewards")
        entries = {n: e if isinstance(e, dict) else {} for n, e in stated.items()}
        weights = {n: float(e.get("weight", 1.0)) for n, e in entries.items()}
        named = [name for name, entry in entries.items() if entry.get("decides")]
        reward = named[0] if named else max(weights, key=lambda name: weights[name])
        return cls(reward, weights[reward], _function(record, registry))

    def changed(self, rows: Sequence[Row], rewards: Sequence[float]) -> list[float]:
        """The totals (N,) of rows with these rewards in the place of the run's."""
        return [
            float(row["reward"] or 0)
            + self.weight * (new - float(row["rewards"][self.reward]["reward"] or 0))
            for row, new in zip(rows, rewards, strict=True)
        ]

    def __call__(self, totals: Sequence[float], size: int) -> list[float]:
        """Advantages (N,) of the totals (N,) of one step."""
        import torch

        found = self.function(torch.tensor(totals), size)
        return [float(value) for value in found]


def _function(record: Record, registry: Registry) -> Advantages:
    beta = record.setting("train.beta")
    if record.method == "rloo" and (0.05 if beta is None else beta):
        raise InputError(
            "RLOO with train.beta above 0 subtracts the KL of each completion from its"
            " reward, and rewards alone do not say it"
        )
    loss, advantage = record.recipe.get("loss"), record.recipe.get("advantage")
    own = isinstance(loss, dict) and loss.get("name") not in (None, "trl")
    if not own or not isinstance(advantage, dict):
        return _trl(record, advantage)
    plugin = registry.get("advantage", str(advantage.get("name")))
    options = {key: value for key, value in advantage.items() if key != "name"}
    if problems := [text for _, text in plugins.check_options(plugin, options)]:
        raise InputError(*problems)
    if plugin.value.by_reward:
        raise InputError(f"advantage '{plugin.name}' looks at each reward by itself")
    chosen = registry.get("loss", str(loss["name"])) if isinstance(loss, dict) else None
    assert chosen is not None
    typed = plugins.typed_options(plugin, options)
    objective = Objective(chosen.value, advantage=plugin.value, advantage_options=typed)
    return objective.advantages


def _trl(record: Record, advantage: Any) -> Advantages:
    """TRL's own, as its GRPOTrainer and RLOOTrainer compute them."""
    train = record.recipe.get("train")
    fields: Mapping[str, Any] = train if isinstance(train, dict) else {}
    if record.method == "rloo":
        normalized = bool(fields.get("normalize_advantages", False))
        clip = fields.get("reward_clip_range")

        def leave_one_out(rewards: Tensor, size: int) -> Tensor:
            rewards = rewards.clamp(*clip) if clip else rewards
            groups = rewards.view(-1, size)
            others = (groups.sum(dim=1, keepdim=True) - groups) / max(size - 1, 1)
            found = (groups - others).view(-1)
            if normalized:
                found = (found - found.mean()) / (found.std() + TRL_EPS)
            return found

        return leave_one_out
    if fields.get("multi_objective_aggregation", "sum_then_normalize") != (
        "sum_then_normalize"
    ):
        raise InputError("normalize_then_sum looks at each reward by itself")
    scale = fields.get("scale_rewards", "group")
    if isinstance(advantage, dict) and advantage.get("scale") == "none":
        scale = "none"  # `advantage: {name: group, scale: none}` is this field of TRL's
    scale = {True: "group", False: "none"}.get(scale, scale)

    def group(rewards: Tensor, size: int) -> Tensor:
        groups = rewards.view(-1, size)
        found = groups - groups.mean(dim=1, keepdim=True)
        if scale == "group":
            found = found / (groups.std(dim=1, keepdim=True) + TRL_EPS)
        elif scale == "batch":
            found = found / (rewards.std() + TRL_EPS)
        return found.reshape(-1)

    return group
