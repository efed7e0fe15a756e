"""What `train:`, `model.lora` and `model.quantize` may hold: the fields of the installed libraries' config classes."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe import trl_reads
from alignkit.recipe.schema import walk
from alignkit.recipe.trl_fields import CONFIGS, LORA, PEFT_BASE, QUANTIZE, Field
from alignkit.recipe.trl_fields import fields as fields_of
from alignkit.recipe.trl_values import faults, yes_or_no

__all__ = ["yes_or_no"]

STOCK_LOSS_FIELDS = {
    method: trl_reads.needing("sft" if method == "expert_iteration" else method, "loss")
    for method in CONFIGS
}
STOCK_ADVANTAGE_FIELDS = trl_reads.needing("grpo", "advantage") | trl_reads.needing(
    "rloo", "advantage"
)
# What TRL and torch check only once a model is loaded, or not at all. (lowest, whether it is itself allowed)
_LOWEST: dict[str, tuple[float, bool]] = {
    **dict.fromkeys(
        (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
        ),
        (1, True),
    ),
    **dict.fromkeys(
        (
            "num_generations",
            "num_generations_eval",
            "num_iterations",
            "steps_per_generation",
        ),
        (1, True),
    ),
    **dict.fromkeys(("generation_batch_size", "max_length"), (1, True)),
    "max_steps": (1, True),
    **dict.fromkeys(
        ("num_train_epochs", "logging_steps", "save_steps", "eval_steps"), (0, False)
    ),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "beta"),
        (0, True),
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), (0, True)),
}
_NO_LIMIT = {("max_steps", -1)}  # TRL's word for no limit


def fields(method: str) -> dict[str, Field]:
    """The fields of the installed TRL's config for a method, by name."""
    return fields_of(CONFIGS[method])


def may_name_a_file(name: str) -> bool:
    """Whether a field of some method takes a map, or a text in its place."""
    for method in CONFIGS:
        if (field := fields(method).get(name)) is not None:
            arms = [field.schema, *field.schema.get("anyOf", ())]
            if {"object", "string"} <= {arm.get("type") for arm in arms}:
                return True
    return False


def lora_fields() -> dict[str, Field]:
    """The fields of PEFT's LoraConfig; not those that PEFT keeps in every config for itself."""
    kept = fields_of(PEFT_BASE)
    return {name: field for name, field in fields_of(LORA).items() if name not in kept}


def quantize_fields() -> dict[str, Field]:
    """The arguments of transformers' BitsAndBytesConfig."""
    return fields_of(QUANTIZE)


def default(method: str, name: str) -> Any:
    """TRL's own default of a field."""
    return fields(method)[name].default


def setting(config: Any, name: str) -> Any:
    """A `train` field's value in a checked recipe: as stated, else TRL's own default."""
    return config.train[name] if name in config.train else default(config.method, name)


def effective(config: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Every field of the method's TRL config as a plain recipe sets it, and what else decides what TRL reads.

    That is `loss` and `advantage` by name, `processes`, `track`.
    """
    loss, generation, train = (
        _map(config.get(key)) for key in ("loss", "generation", "train")
    )
    vllm, launch = _map(generation.get("vllm")), _map(config.get("launch"))
    processes = launch.get("processes", 1)
    found = {name: field.default for name, field in fields(method).items()} | {
        "loss": loss.get("name", "trl"),
        "advantage": _map(config.get("advantage")).get("name"),
        "processes": processes if isinstance(processes, int) else trl_reads.UNSURE,
        "track": config.get("track", []),
    }
    if method in trl_reads.POLICY:
        engines = {"vllm": True, "transformers": False}
        found["use_vllm"] = engines.get(str(generation.get("engine")), trl_reads.UNSURE)
        found["vllm_mode"] = vllm.get("mode", found["vllm_mode"])
        found["vllm_server_base_url"] = vllm.get("server")
    if "loss_type" in loss:
        found["loss_type"] = loss["loss_type"]
    return {**found, **train}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def check(
    method: str, train: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str]]:
    """(field, problem) for all of `train` that the method's TRL config does not take, or that nothing would read.

    `settings` are those in force (see `effective`); where none are given, those of `train` alone.
    """
    known, owned = fields(method), walk.owned(method)
    settings = effective({"train": train}, method) if settings is None else settings
    for name, value in train.items():
        if name not in known:
            config = CONFIGS[method].removeprefix("trl.")
            yield name, f"TRL's {config} has no such field; {nearest(name, known)}"
            continue
        if name in owned:
            yield name, f"in a recipe {owned[name]}"
            continue
        wrong = [*_misfits(name, known[name], value)]
        yield from wrong
        if not wrong and (reason := trl_reads.unread(method, name, settings)):
            yield name, reason
        if name == "save_strategy" and value == "best" and method in trl_reads.POLICY:
            use = "best may save within a rollout batch, from which no run goes on; use `best`, which keeps a model"
            yield name, use
        if name == "generation_kwargs" and isinstance(value, dict):
            ours = walk.owned_generation_kwargs()
            for key in value.keys() & ours.keys():
                yield f"{name}.{key}", f"use {ours[key]}"


def check_loss(method: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, problem) for `loss: {name: trl, …}`: TRL's own loss, chosen by `loss_type` where it has several."""
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
    """(field, problem) for all of `model.quantize` that transformers' BitsAndBytesConfig does not take."""
    known = quantize_fields()
    for name, value in settings.items():
        if name in known:
            yield from _misfits(name, known[name], value)
        else:
            yield (
                name,
                f"transformers' BitsAndBytesConfig has no such field; {nearest(name, known)}",
            )
    if not settings.get("load_in_4bit") and not settings.get("load_in_8bit"):
        yield "load_in_4bit", "is missing: say load_in_4bit: true or load_in_8bit: true"


def _misfits(name: str, field: Field, value: Any) -> Iterator[tuple[str, str]]:
    wrong = [
        (".".join((name, *map(str, below))), text)
        for below, text in faults(field.schema, value)
    ]
    yield from wrong
    lowest, allowed = _LOWEST.get(name, (-math.inf, True))
    if (
        wrong
        or isinstance(value, bool)
        or not isinstance(value, int | float)
        or (name, value) in _NO_LIMIT
    ):
        return
    if value < lowest or (value == lowest and not allowed):
        yield (
            name,
            f"given {value}, expected {'at least' if allowed else 'more than'} {lowest}",
        )


def built(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with each map as the object that the class's annotation names, since few classes take a map for it."""
    hints = typing.get_type_hints(config)
    objects = {}
    for name, value in values.items():
        arms = (hints.get(name), *typing.get_args(hints.get(name)))
        kind: Any = next((arm for arm in arms if dataclasses.is_dataclass(arm)), None)
        nested = kind is not None and isinstance(value, dict)
        objects[name] = kind(**built(kind, value)) if nested else value
    return objects
