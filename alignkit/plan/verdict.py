"""The rules, told what is known here: the model's configuration, the rows, the GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, first_line, nearest
from alignkit.machine.gpus import cards
from alignkit.models.shape import adapted, configuration, context
from alignkit.recipe import rules
from alignkit.recipe.schema import Policy

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe.schema import Model, Stage


def facts(
    origin: Model, registry: Registry, tokenizer: Any, rows: int | None
) -> rules.Facts:
    """What is known here beside a recipe.

    Args:
        origin: the `model` section that the weights come from.
        tokenizer: None where the model is not here.
        rows: of the training data, None where they are not here.
    """
    gpus = len(cards())
    known = rules.Facts(registry=registry, train_rows=rows, gpus=gpus)
    if tokenizer is None:
        return known
    known = replace(known, tokens=frozenset(tokenizer.get_vocab()))
    model = configuration(origin.path, origin.build, origin.revision)
    if model is None:
        return known
    sizes = {
        **model.get_text_config().to_dict(),
        "max_position_embeddings": context(model),
    }
    return replace(known, model=sizes)


def faults(config: Stage, origin: Model, known: rules.Facts) -> list[str]:
    """What the rules find in a recipe, and what PEFT finds in its adapter."""
    problems = list(rules.check(config, known))
    of_lora = any(key[:2] == ("model", "lora") for key, _ in problems)
    refused: tuple[str, ...] = ()
    if config.model.lora and known.model is not None and not of_lora:
        model = configuration(origin.path, origin.build, origin.revision)
        try:
            modules, head = adapted(model, config.model.lora)
        except InputError as error:
            refused = error.problems
        else:
            more = replace(known, modules=modules, adapts_head=head)
            problems = list(rules.check(config, more))
    return [*map(told, problems), *refused, *_generation(config)]


def _generation(config: Stage) -> list[str]:
    """What transformers refuses of the generation that TRL is told to do by it."""
    if not isinstance(config, Policy) or config.generation.engine == "vllm":
        return []
    from transformers import GenerationConfig

    stated = dict(config.train.get("generation_kwargs") or {})
    place = "train.generation_kwargs"
    if cache := config.train.get("cache_implementation"):
        stated["cache_implementation"], place = cache, "train.cache_implementation"
    try:
        unknown = GenerationConfig().update(**stated)
    except (ValueError, TypeError) as error:
        return [f"{place}: {first_line(error)}"]
    known = GenerationConfig().to_dict()
    return [
        f"{place}.{name}: transformers knows no such setting; {nearest(name, known)}"
        for name in unknown
    ]


def told(problem: rules.Problem) -> str:
    """A problem as a line."""
    key, text = problem
    return f"{'.'.join(key)}: {text}"
