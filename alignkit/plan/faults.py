"""The rules, told what is known here: the model's configuration, the rows, the GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.machine import doctor
from alignkit.models.shape import adapted, configuration
from alignkit.recipe import rules

if TYPE_CHECKING:
    from alignkit.plugins import Registry


def faults(
    config: Any, origin: Any, registry: Registry, tokenizer: Any, rows: int | None
) -> list[str]:
    """What the rules find in a recipe.

    Args:
        origin: the `model` section that the weights come from. tokenizer: None where the model is not here.
        rows: of the training data, None where they are not here.
    """
    known = rules.Facts(registry=registry, train_rows=rows, gpus=len(doctor.gpus()[0]))
    model = None
    if tokenizer is not None:
        model = configuration(origin.path, origin.build, origin.revision)
        known = replace(known, tokens=frozenset(tokenizer.get_vocab()))
    if model is not None:
        known = replace(known, model=model.get_text_config().to_dict())
    problems = list(rules.check(config, known))
    refused: list[str] = []
    if (
        config.model.lora
        and model is not None
        and not any(key[:2] == ("model", "lora") for key, _ in problems)
    ):
        try:
            modules, head = adapted(model, config.model.lora)
        except InputError as error:
            refused += error.problems
        else:
            problems = list(
                rules.check(config, replace(known, modules=modules, adapts_head=head))
            )
    return [f"{'.'.join(key)}: {text}" for key, text in problems] + refused
