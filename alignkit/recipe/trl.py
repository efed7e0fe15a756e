"""What `train:`, `model.lora` and `model.quantize` may hold: the fields of the
installed libraries' config classes, and of those what something reads.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe import trl_reads
from alignkit.recipe.schema import walk
from alignkit.recipe.trl_fields import CONFIGS, LORA, PEFT_BASE, QUANTIZE, Field
from alignkit.recipe.trl_fields import fields as fields_of
from alignkit.recipe.trl_needs import UNSURE
from alignkit.recipe.trl_values import faults, yes_or_no

__all__ = ["yes_or_no"]

STOCK_LOSS_FIELDS = {
    method: trl_reads.needing(method, "loss.name") for method in CONFIGS
}
STOCK_ADVANTAGE_FIELDS = frozenset().union(
    *(trl_reads.needing(method, "advantage.name") for method in trl_reads.POLICY)
)
# What TRL and torch check only once a model is loaded, or not at all: the lowest value,
# and whether it is itself allowed.
_COUNTS = """per_device_train_batch_size per_device_eval_batch_size num_iterations
gradient_accumulation_steps num_generations num_generations_eval steps_per_generation
generation_batch_size max_length max_steps"""
_AMOUNTS = "num_train_epochs logging_steps save_steps eval_steps"
_RATES = """learning_rate weight_decay max_grad_norm warmup_steps beta adam_beta1
adam_beta2 adam_epsilon"""
_LOWEST: dict[str, tuple[float, bool]] = {
    **dict.fromkeys(_COUNTS.split(), (1, True)),
    **dict.fromkeys(_AMOUNTS.split(), (0, False)),
    **dict.fromkeys(_RATES.split(), (0, True)),
}
_NO_LIMIT = ("max_steps", -1)  # TRL's word for it


def fields(method: str) -> dict[str, Field]:
    """The fields of the installed TRL's config for a method, by name."""
    return fields_of(CONFIGS[method])


def lora_fields() -> dict[str, Field]:
    """The fields of PEFT's LoraConfig, without what PEFT keeps in every config."""
    kept = fields_of(PEFT_BASE)
    return {name: field for name, field in fields_of(LORA).items() if name not in kept}


def quantize_fields() -> dict[str, Field]:
    """The arguments of transformers' BitsAndBytesConfig."""
    return fields_of(QUANTIZE)


def may_name_a_file(name: str) -> bool:
    """Whether a field of some method takes a map, or a text in its place."""
    known = [fields(method).get(name) for method in CONFIGS]
    kinds = [
        {arm.get("type") for arm in field.schema.get("anyOf", ())}
        for field in known
        if field is not None
    ]
    return any({"object", "string"} <= each for each in kinds)


# Where a recipe says nothing, alignkit differs from TRL: one recipe is one objective,
# whichever engine generates.
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "grpo": {"vllm_importance_sampling_correction": False}
}


def default(method: str, name: str) -> Any:
    """What a field is where a recipe says nothing: TRL's own default, but for a few."""
    own = OWN_DEFAULTS.get(method, {})
    return own[name] if name in own else fields(method)[name].default


def setting(config: Any, name: str) -> Any:
    """The value of a `train` field in a checked recipe: as stated, or the default."""
    return config.train[name] if name in config.train else default(config.method, name)


def effective(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Every field of the method's TRL config as a plain recipe sets it, and by its
    dotted name every other key that the recipe states.
    """
    settings = {name: default(method, name) for name in fields(method)}
    settings |= {"loss.name": "trl", "advantage.name": None, "track": []}
    settings["launch.processes"] = 1
    for path, value in walk.stated(config, ()):
        known = walk.declared(path)
        settings[".".join(path)] = value
        if known is not None and known.key.trl in settings:
            settings[known.key.trl] = value
    if not isinstance(settings["launch.processes"], int):
        settings["launch.processes"] = UNSURE
    if method in trl_reads.POLICY:
        engines = {"vllm": True, "transformers": False}
        engine = str(settings.get("generation.engine"))
        settings["use_vllm"] = engines.get(engine, UNSURE)
    loss, train = _map(config.get("loss")), _map(config.get("train"))
    if "loss_type" in loss:
        settings["loss_type"] = loss["loss_type"]
    owned = walk.owned(method)
    return settings | {name: train[name] for name in train if name not in owned}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def check(method: str, train: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, problem) for all of `train` that the method's config does not take."""
    known, owned = fields(method), walk.owned(method)
    for name, value in train.items():
        if name not in known:
            config = CONFIGS[method].removeprefix("trl.")
            yield name, f"TRL's {config} has no such field; {nearest(name, known)}"
            continue
        if name in owned:
            yield name, f"in a recipe {owned[name]}"
            continue
        yield from _misfits(name, known[name], value)
        if name == "save_strategy" and value == "best" and method in trl_reads.POLICY:
            yield (
                name,
                (
                    "best may save within a rollout batch, from which no run goes on;"
                    " use `best`, which keeps a model"
                ),
            )
        if name == "generation_kwargs" and isinstance(value, dict):
            ours = walk.owned_generation_kwargs()
            for key in value.keys() & ours.keys():
                yield f"{name}.{key}", f"use {ours[key]}"


def unread(
    method: str, train: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(field, reason) for all of `train` that nothing would read under the settings in
    force (see `effective`).
    """
    for name in train.keys() - walk.owned(method).keys():
        reason = trl_reads.unread(method, name, settings)
        if reason is not None:
            yield name, reason


def unread_keys(
    method: str, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[walk.Path, str]]:
    """(key, reason) for all that a plain recipe states outside of `train` of what is
    handed on to TRL, which reads it elsewhere.
    """
    for path, _ in walk.stated(config, ()):
        known = walk.declared(path)
        if known is not None and known.key.trl:
            reason = trl_reads.unread(method, known.key.trl, settings)
            if reason is not None:
                yield path, reason


def check_loss(method: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, problem) for `loss: {name: trl, …}`: TRL's own loss, chosen by
    `loss_type` where it has several.
    """
    known = fields(method)
    for name, value in options.items():
        if name != "loss_type" or name not in known:
            hint = f"; use train.{name}" if name in known else ""
            yield name, f"is no option of TRL's own loss for {method}{hint}"
        else:
            listed = [value] if method == "dpo" and isinstance(value, str) else value
            yield from _misfits(name, known[name], listed)


def check_lora(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, problem) for all of `model.lora` that PEFT's LoraConfig does not take."""
    known = lora_fields()
    for stated, value in settings.items():
        name = "lora_alpha" if stated == "alpha" else stated
        if name not in known:
            yield (
                stated,
                f"PEFT's LoraConfig has no such field; {nearest(stated, known)}",
            )
        elif stated != name and name in settings:
            yield stated, "alpha and lora_alpha are one field; state it once"
        else:
            yield from _misfits(stated, known[name], value)


def check_quantize(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, problem) for all of `model.quantize` that transformers'
    BitsAndBytesConfig does not take.
    """
    known = quantize_fields()
    for name, value in settings.items():
        if name in known:
            yield from _misfits(name, known[name], value)
        else:
            yield (
                name,
                (
                    "transformers' BitsAndBytesConfig has no such field;"
                    f" {nearest(name, known)}"
                ),
            )
    if not settings.get("load_in_4bit") and not settings.get("load_in_8bit"):
        yield "load_in_4bit", "is missing: say load_in_4bit: true or load_in_8bit: true"


def _misfits(name: str, field: Field, value: Any) -> Iterator[tuple[str, str]]:
    wrong = list(faults(field.schema, value))
    for below, text in wrong:
        yield ".".join((name, *map(str, below))), text
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wrong or not number or name not in _LOWEST or (name, value) == _NO_LIMIT:
        return
    lowest, allowed = _LOWEST[name]
    if value < lowest or (value == lowest and not allowed):
        bound = "at least" if allowed else "more than"
        yield name, f"given {value}, expected {bound} {lowest}"


def built(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with each map as the object that the class's annotation names: few classes
    take a map in its place.
    """
    hints = typing.get_type_hints(config)
    objects = {}
    for name, value in values.items():
        arms = (hints.get(name), *typing.get_args(hints.get(name)))
        kind: Any = next((arm for arm in arms if dataclasses.is_dataclass(arm)), None)
        if kind is not None and isinstance(value, dict):
            value = kind(**built(kind, value))
        objects[name] = value
    return objects
