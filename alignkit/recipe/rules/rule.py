"""What a rule is: a pure function of a resolved recipe and of what is known beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from alignkit.plugins import Registry
from alignkit.recipe.schema import Trained

Problem = tuple[tuple[str, ...], str]  # the key at fault, and what is wrong with it


@dataclass(frozen=True)
class Facts:
    """What a rule may know beside the recipe; of what is None, it says nothing."""

    registry: Registry | None = None  # holds every plugin that the recipe names
    model: Mapping[str, Any] | None = None  # the configuration of the model's text part
    modules: tuple[str, ...] | None = None  # by their full names
    adapts_head: bool | None = None  # whether LoRA, as stated, adapts the head
    tokens: frozenset[str] | None = None  # the tokenizer's vocabulary
    train_rows: int | None = None
    gpus: int | None = None


Rule = Callable[[Trained, Facts], Iterator[Problem]]
Of = TypeVar("Of", bound=Trained)


def of(*kinds: type[Of]) -> Callable[[Callable[[Of, Facts], Iterator[Problem]]], Rule]:
    """A rule for recipes of these methods only."""

    def decorate(rule: Callable[[Of, Facts], Iterator[Problem]]) -> Rule:
        @functools.wraps(rule)
        def limited(config: Trained, facts: Facts) -> Iterator[Problem]:
            if isinstance(config, kinds):
                yield from rule(config, facts)

        return limited

    return decorate
