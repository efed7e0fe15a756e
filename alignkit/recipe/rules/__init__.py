"""Every rule about a recipe: loading one, `align plan` and `align run` ask the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignkit.recipe.rules import (
    batches,
    evals,
    generation,
    lora,
    loss,
    machine,
    model,
    schedule,
)
from alignkit.recipe.rules.rule import Facts, Problem, Rule
from alignkit.recipe.rules.settings import setting

__all__ = ["RULES", "Facts", "Problem", "Rule", "check", "setting"]

RULES: tuple[Rule, ...] = (
    *model.RULES,
    *lora.RULES,
    *loss.RULES,
    *generation.RULES,
    *batches.RULES,
    *schedule.RULES,
    *evals.RULES,
    *machine.RULES,
)


def check(config: Any, facts: Facts = Facts()) -> Iterator[Problem]:  # noqa: B008 (it is frozen)
    """Every fault of a resolved recipe, or of one stage of a pipeline.

    Values must be of the types that the schema and TRL's config take.
    """
    found = dict.fromkeys(problem for rule in RULES for problem in rule(config, facts))
    for kept, changed in _iterations(config):
        for key, text in (
            problem for rule in RULES for problem in rule(changed, facts)
        ):
            if (key, text) not in found and key[:1] == ("train",):
                place = ("expert_iteration", "train_by_kept", kept, *key[1:])
                stated = key[1] in config.expert_iteration.train_by_kept[kept]
                found[place if stated else key, text] = None
    yield from found


def _iterations(config: Any) -> Iterator[tuple[str, Any]]:
    """The recipe as each entry of `train_by_kept` changes it."""
    if config.method != "expert_iteration":
        return
    changes: Mapping[str, Mapping[str, Any]] = config.expert_iteration.train_by_kept
    for kept, changed in changes.items():
        yield kept, config.model_copy(update={"train": {**config.train, **changed}})
