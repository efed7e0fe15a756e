"""The trainer that a recipe means: TRL's for the method, with its objective and
rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignkit import plugins
from alignkit.recipe.schema import GRPO, SFT, Policy, Stepped
from alignkit.train.objective import Objective
from alignkit.train.rewards import Answers, RewardBoard, bound_rewards, deciding

if TYPE_CHECKING:
    from alignkit.grading import Grader
    from alignkit.plugins import Registry
    from alignkit.run import Run
    from alignkit.train.seam import Seam


def make_trainer(config: Stepped, board: RewardBoard | None, **keywords: Any) -> Seam:
    """The trainer of the recipe's method; `board` are the rewards of GRPO and RLOO.

    `keywords` go to TRL, `objective` to ours.
    """
    if isinstance(config, Policy):
        from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer

        kind = AlignGRPOTrainer if isinstance(config, GRPO) else AlignRLOOTrainer
        assert board is not None
        vllm = config.generation.vllm
        return kind(
            reward_funcs=board.functions,
            board=board,
            sync_tolerance=vllm.sync_tolerance if vllm is not None else None,
            redraws=config.generation.resample_equal_groups,
            **keywords,
        )
    if isinstance(config, SFT):
        from alignkit.train.sft import AlignSFTTrainer

        return AlignSFTTrainer(**keywords)
    from alignkit.train.dpo import AlignDPOTrainer

    return AlignDPOTrainer(**keywords)


def objective(config: Stepped, registry: Registry) -> Objective | None:
    """The loss and advantage plugins of a recipe; None for TRL's own loss (`loss:
    {name: trl}`, or none named).
    """
    if config.loss is None or config.loss.name == "trl":
        return None
    loss = registry.get("loss", config.loss.name)
    chosen = Objective(
        loss=loss.value,
        options=plugins.typed_options(loss, config.loss.options),
        normalize=config.loss.normalize,
        constant=config.loss.constant,
    )
    if not isinstance(config, Policy) or config.advantage is None:
        return chosen
    advantage = registry.get("advantage", config.advantage.name)
    options = plugins.typed_options(advantage, config.advantage.options)
    return replace(chosen, advantage=advantage.value, advantage_options=options)


def reward_board(
    config: Policy,
    registry: Registry,
    grader: Grader,
    run: Run,
    answers: Mapping[str, Answers],
) -> RewardBoard:
    """The rewards of a recipe; `answers` by the kind of rollouts."""
    entries = config.rewards
    rewards = bound_rewards(config, registry)
    zero = {
        reward.name: entries[name].on_error == "zero"
        for name, reward in rewards.items()
    }
    weights = [entry.weight for entry in entries.values()]
    verdict = deciding(entries)
    return RewardBoard(
        [*rewards.values()], weights, zero, verdict, grader, run, answers
    )
