"""What `train:` and `model.lora` may hold: the fields of the installed TRL's and PEFT's
config classes.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe.schema import walk
from alignkit.recipe.trl_fields import Field, dataclass_fields, enums_in, package

_CONFIGS = {
    "sft": "SFTConfig",
    "grpo": "GRPOConfig",
    "rloo": "RLOOConfig",
    "dpo": "DPOConfig",
}
_CONFIGS["expert_iteration"] = "SFTConfig"
# Read by TRL's own losses alone; beside a loss plugin they would be read by nothing.
_STOCK_GRPO = """epsilon epsilon_high delta sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos
vespo_k_neg vespo_lambda_neg importance_sampling_level top_entropy_quantile entropy_coef use_adaptive_entropy
entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target off_policy_mask_threshold"""
_STOCK_DPO = """beta loss_weights ld_alpha f_divergence_type f_alpha_divergence_coef label_smoothing use_weighting
discopop_tau"""
STOCK_LOSS_FIELDS = {
    "sft": frozenset({"label_smoothing_factor"}),
    "expert_iteration": frozenset({"label_smoothing_factor"}),
    "grpo": frozenset(_STOCK_GRPO.split()),
    "rloo": frozenset({"epsilon", "epsilon_high"}),
    "dpo": frozenset(_STOCK_DPO.split()),
}
# What TRL and torch check only once a model is loaded, or not at all. (lowest, whether
# it is itself allowed)
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
    **dict.fromkeys(
        ("num_train_epochs", "logging_steps", "save_steps", "eval_steps"), (0, False)
    ),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "beta"),
        (0, True),
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), (0, True)),
}
# Read where TRL computes the advantages; beside an advantage plugin they would be read
# by nothing.
STOCK_ADVANTAGE_FIELDS = frozenset(
    {"scale_rewards", "multi_objective_aggregation", "normalize_advantages"}
)


def check(
    method: str,
    train: Mapping[str, Any],
    loss: str | None = None,
    advantage: bool = False,
) -> list[tuple[str, str]]:
    """(field, problem) for all of `train` that the method's TRL config does not take,
    or that nothing would read.

    `loss` is the recipe's loss by name, `advantage` whether it states an advantage.
    """
    known = fields(method)
    config = _CONFIGS[method]
    owned = walk.owned(method)
    problems = []
    for name, value in train.items():
        if name not in known:
            problems.append(
                (name, f"TRL's {config} has no such field; {nearest(name, known)}")
            )
        elif name in owned:
            problems.append((name, f"in a recipe {owned[name]}"))
        elif name in STOCK_LOSS_FIELDS.get(method, ()) and loss not in (None, "trl"):
            problems.append(
                (
                    name,
                    (
                        f"is read by TRL's own loss only, and loss.name is {loss}; use the"
                        " loss's options"
                    ),
                )
            )
        elif advantage and name in STOCK_ADVANTAGE_FIELDS:
            problems.append(
                (
                    name,
                    (
                        "is read where TRL computes the advantages, but the recipe states"
                        " advantage"
                    ),
                )
            )
        elif name == "save_strategy" and value == "best" and method in ("grpo", "rloo"):
            use = (
                "best may save within a rollout batch, from which no run goes on; use"
                " `best`, which keeps a model"
            )
            problems.append((name, use))
        elif problem := _misfit(known[name], value) or _too_low(name, value):
            problems.append((name, problem))
        elif name == "generation_kwargs" and isinstance(value, dict):
            ours = walk.owned_generation_kwargs()
            problems += [
                (f"{name}.{key}", f"use {ours[key]}") for key in value if key in ours
            ]
    return problems


def check_loss(method: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, problem) for `loss: {name: trl, …}`: TRL's own loss, chosen by
    `loss_type` where it has several.
    """
    known = fields(method)
    problems = []
    for name, value in options.items():
        if name != "loss_type" or name not in known:
            hint = f"; use train.{name}" if name in known else ""
            problems.append(
                (name, f"is no option of TRL's own loss for {method}{hint}")
            )
        elif problem := _misfit(
            known[name],
            [value] if method == "dpo" and isinstance(value, str) else value,
        ):
            problems.append((name, problem))
    return problems


def check_lora(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, problem) for all of `model.lora` that PEFT's LoraConfig does not take."""
    known = lora_fields()
    problems = []
    for given, value in settings.items():
        name = "lora_alpha" if given == "alpha" else given
        if name not in known:
            problems.append(
                (given, f"PEFT's LoraConfig has no such field; {nearest(given, known)}")
            )
        elif given != name and name in settings:
            problems.append(
                (given, "alpha and lora_alpha are one field; state it once")
            )
        elif problem := _misfit(known[name], value):
            problems.append((given, problem))
    return problems


def check_quantize(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, problem) for all of `model.quantize` that transformers'
    BitsAndBytesConfig does not take.
    """
    known = quantize_fields()
    problems = [
        (
            name,
            (
                "transformers' BitsAndBytesConfig has no such field;"
                f" {nearest(name, known)}"
            ),
        )
        for name in settings
        if name not in known
    ]
    for name, value in settings.items():
        default = known.get(name)
        if isinstance(default, bool | str) and type(value) is not type(default):
            kind = "true or false" if isinstance(default, bool) else "text"
            problems.append((name, f"given {value!r}, expected {kind}"))
    if not settings.get("load_in_4bit") and not settings.get("load_in_8bit"):
        problems.append(
            ("load_in_4bit", "is missing: say load_in_4bit: true or load_in_8bit: true")
        )
    return problems


def _misfit(field: Field, value: Any) -> str | None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    from alignkit.recipe.yaml import describe

    for word in value if isinstance(value, list) else [value]:
        if field.choices and isinstance(word, str) and word not in field.choices:
            return (
                f"given {word!r}, expected one of {', '.join(field.choices)};"
                f" {nearest(word, field.choices)}"
            )
    try:
        # By way of JSON a list fits a tuple; everything else stays strict.
        adapter = TypeAdapter(
            field.type, config=ConfigDict(strict=True, allow_inf_nan=False)
        )
        adapter.validate_json(json.dumps(value))
    except ValidationError:
        hint = ""
        if field.type is bool or bool in getattr(field.type, "__args__", ()):
            hint = yes_or_no(value)
        return f"given {describe(value)}, expected {words(field)}{hint}"
    return None


def _too_low(name: str, value: Any) -> str | None:
    lowest, allowed = _LOWEST.get(name, (-math.inf, True))
    if (
        not isinstance(value, int | float)
        or value > lowest
        or (allowed and value == lowest)
    ):
        return None
    return f"given {value}, expected {'at least' if allowed else 'more than'} {lowest}"


def yes_or_no(value: Any) -> str:
    """A hint where text stands that YAML 1.1 took for a truth value."""
    truth = {
        "yes": "true",
        "on": "true",
        "y": "true",
        "no": "false",
        "off": "false",
        "n": "false",
    }
    word = truth.get(value.lower()) if isinstance(value, str) else None
    return f"; write {word} ('{value}' is text in YAML 1.2)" if word else ""


def words(field: Field) -> str:
    """What a field takes, in words."""
    if field.type is NoneType:
        return "nothing (what it takes cannot be written in a recipe)"
    if field.type is dict or "Config" in field.annotation:
        return "a map"
    names = {
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "None": "null",
    }
    parts = [
        names.get(part.strip(), _literal_words(part.strip()))
        for part in re.split(r"\|(?![^\[]*\])", field.annotation)
    ]
    if field.choices:
        parts = [
            f"one of {', '.join(field.choices)}",
            *[p for p in parts if p in ("null", "true or false")],
        ]
    return " or ".join(dict.fromkeys(parts))


def _literal_words(annotation: str) -> str:
    listed = re.fullmatch(r"Literal\[(.*)\]", annotation)
    return "one of " + listed[1].replace("'", "") if listed else annotation


def may_name_a_file(name: str) -> bool:
    """Whether a field of some method takes a map, or a text in its place."""
    for method in _CONFIGS:
        field = fields(method).get(name)
        if field is not None and {"dict", "str"} <= set(
            re.findall(r"\w+", field.annotation)
        ):
            return True
    return False


def fields(method: str) -> dict[str, Field]:
    """The fields of the installed TRL's config for a method, by name."""
    return _trl_fields(_CONFIGS[method])


@functools.cache
def _trl_fields(config: str) -> dict[str, Field]:
    transformers, trl = package("transformers"), package("trl")
    own = trl / "trainer" / f"{config.removesuffix('Config').lower()}_config.py"
    enums = enums_in(
        transformers / "trainer_utils.py",
        transformers / "training_args.py",
        transformers / "debug_utils.py",
    )
    found: dict[str, Field] = {}
    for file, name in (
        (transformers / "training_args.py", "TrainingArguments"),
        (trl / "trainer" / "base_config.py", "_BaseConfig"),
        (own, config),
    ):
        found |= dataclass_fields(file, name, enums, unknown=NoneType)
    return found


@functools.cache
def quantize_fields() -> dict[str, Any]:
    """The arguments of the installed transformers' BitsAndBytesConfig and their
    defaults (it is no dataclass).
    """
    tree = ast.parse(
        (package("transformers") / "utils" / "quantization_config.py").read_text(
            encoding="utf-8"
        )
    )
    config = next(
        n
        for n in tree.body
        if isinstance(n, ast.ClassDef) and n.name == "BitsAndBytesConfig"
    )
    init = next(
        n
        for n in config.body
        if isinstance(n, ast.FunctionDef) and n.name == "__init__"
    ).args
    names = [argument.arg for argument in init.args[1:]]
    return dict(zip(names, map(ast.literal_eval, init.defaults), strict=True))


@functools.cache
def lora_fields() -> dict[str, Field]:
    """The fields of the installed PEFT's LoraConfig, by name; what is a dataclass there
    is a map here.
    """
    return dataclass_fields(
        package("peft") / "tuners" / "lora" / "config.py",
        "LoraConfig",
        {},
        unknown=dict,
    )
