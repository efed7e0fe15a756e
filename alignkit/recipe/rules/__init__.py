"""Every rule about a recipe: loading one, `align plan` and `align run` ask the same ones."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.recipe.rules import (
    advantage,
    batches,
    evals,
    generation,
    lora,
    loss,
    machine,
    model,
    proofs,
    schedule,
)
from alignkit.recipe.rules.rule import Facts, Problem, Rule
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.rules.warnings import WARNINGS
from alignkit.recipe.schema import ExpertIteration, Trained

__all__ = ["RULES", "Facts", "Problem", "Rule", "check", "setting", "warnings"]

RULES: tuple[Rule, ...] = (
    *model.RULES,
    *lora.RULES,
    *loss.RULES,
    *advantage.RULES,
    *generation.RULES,
    *batches.RULES,
    *schedule.RULES,
    *evals.RULES,
    *proofs.RULES,
    *machine.RULES,
)


def check(config: Trained, facts: Facts = Facts()) -> Iterator[Problem]:  # noqa: B008 (it is frozen)
    """Every fault of a resolved recipe, or of one stage of a pipeline.

    Values must be of the types that the schema and TRL's config take.
    """
    found = dict.fromkeys(_each(config, facts))
    if isinstance(config, ExpertIteration):
        for kept, changes in config.expert_iteration.train_by_kept.items():
            train = {**config.train, **changes}
            changed = config.model_copy(update={"train": train})
            for key, text in _each(changed, facts):
                if (key, text) not in found and key[1:2] and key[1] in changes:
                    key = ("expert_iteration", "train_by_kept", kept, *key[1:])
                found[key, text] = None
    yield from found


def _each(config: Trained, facts: Facts) -> Iterator[Problem]:
    for rule in RULES:
        yield from rule(config, facts)


def warnings(config: Trained, facts: Facts) -> Iterator[Problem]:
    """What a recipe without faults may still not mean."""
    for rule in WARNINGS:
        yield from rule(config, facts)
