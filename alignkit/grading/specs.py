"""Rewards as a command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignkit.errors import InputError
from alignkit.grading.bound import BoundReward, bind_plugin
from alignkit.plugins import check_options
from alignkit.recipe import options

if TYPE_CHECKING:
    from alignkit.plugins import Registry

FORM = "NAME[:OPTION=VALUE,…]"


def bind_specs(registry: Registry, specs: Sequence[str]) -> dict[str, BoundReward]:
    """{spec: reward} of each `NAME[:OPTION=VALUE,…]`.

    Raises:
        InputError: every unknown reward, unknown option and wrong value at once.
    """
    rewards: dict[str, BoundReward] = {}
    problems: list[str] = []
    for spec in specs:
        try:
            name, stated = options.named(spec, "--reward")
            plugin = registry.get("reward", name)
        except InputError as error:
            problems += error.problems
            continue
        wrong = [problem for _, problem in check_options(plugin, stated)]
        problems += wrong
        if not wrong:
            rewards[spec] = bind_plugin(plugin, stated)
    if problems:
        raise InputError(*problems)
    return rewards
