"""Advantages: what each can be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.errors import PluginError
from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.schema import Policy


@of(Policy)
def advantage_beside_stock_loss(config: Policy, facts: Facts) -> Iterator[Problem]:
    """TRL's own loss has its own advantages."""
    loss, advantage = config.loss, config.advantage
    if advantage is None or (loss is not None and loss.name != "trl"):
        return
    if loss is None:
        yield (
            ("advantage",),
            "is read beside a loss; state one, such as loss: {name: trl}",
        )
        return
    known = config.method == "grpo" and advantage.name == "group"
    if not known or set(advantage.options) - {"scale"}:
        text = "TRL's own loss has its own advantages; beside it only "
        yield ("advantage",), text + "{name: group, scale: …} of grpo (or ~)"


@of(Policy)
def rewards_of_advantage(config: Policy, facts: Facts) -> Iterator[Problem]:
    """What divides by the group's mean takes no reward below 0."""
    if config.advantage is None or facts.registry is None:
        return
    try:
        advantage = facts.registry.get("advantage", config.advantage.name).value
    except PluginError:  # reported where plugins are looked up
        return
    if not advantage.nonnegative:
        return
    reason = f"advantage '{advantage.name}' takes no rewards below 0"
    for name, reward in config.rewards.items():
        if reward.weight < 0:
            yield ("rewards", name, "weight"), f"{reward.weight:g}, but {reason}"
    if config.method == "rloo" and setting(config, "beta"):
        text = f"subtracts the KL from each reward, but {reason}; set it to 0"
        yield ("train", "beta"), text


RULES = (advantage_beside_stock_loss, rewards_of_advantage)
