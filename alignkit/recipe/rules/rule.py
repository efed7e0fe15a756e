"""What a rule is: a pure function of a resolved recipe and of what is known beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.plugins import Registry

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


Rule = Callable[[Any, Facts], Iterator[Problem]]


def of(*methods: str) -> Callable[[Rule], Rule]:
    """A rule for recipes of these methods only."""

    def decorate(rule: Rule) -> Rule:
        @functools.wraps(rule)
        def limited(config: Any, facts: Facts) -> Iterator[Problem]:
            if config.method in methods:
                yield from rule(config, facts)

        return limited

    return decorate
