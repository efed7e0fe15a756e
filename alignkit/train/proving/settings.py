"""What the live objects of a run hold of its settings, by the recipe's dotted keys."""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit import models
from alignkit.proofs.settings import same
from alignkit.recipe.schema import Build, Policy, Stepped, walk
from alignkit.train import objective

if TYPE_CHECKING:
    from alignkit.train.proving.subject import Subject

RATES = 32  # learning rates of a schedule that are compared, from the first step on
ROWS = 64  # of the training data whose tokens are compared


def of_trainer(trainer: Any) -> dict[str, Any]:
    """Every field of TRL's config, and the trainer's own copies under the same names."""
    names = [field.name for field in dataclasses.fields(trainer.args)]
    fields = {f"train.{name}": plain(vars(trainer.args)[name]) for name in names}
    # where the config leaves a choice to TRL, the copy is that choice
    copies = {
        f"train.{name}": plain(vars(trainer)[name])
        for name in names
        if name in vars(trainer) and vars(trainer.args)[name] is not None
    }
    return _joined([fields, copies])


def first_encoded(trainer: Any) -> list[dict[str, Any]]:
    """The first rows as they are encoded: another data set or mask shows there."""
    rows = trainer.train_dataset
    return [plain(dict(rows[n])) for n in range(min(ROWS, len(rows)))]


def as_made(config: Stepped, trainer: Any) -> dict[str, Any]:
    """What can be observed of a trainer as soon as it is made."""
    known = [of_trainer(trainer), trainer.effective_settings()]
    known += [_machine(trainer), _model(config, trainer)]
    if isinstance(config, Policy):
        known.append(_rewards(config, trainer))
    return _joined(known)


def in_force(subject: Subject) -> dict[str, Any]:
    """All that can be observed once the trainer has made optimizer, schedule and data
    loader.
    """
    config, trainer = subject.config, subject.trainer
    known = [as_made(config, trainer), _optimizer(trainer), _schedule(trainer)]
    settings = _joined([*known, _loader(subject), _data(subject)])
    for path, declared in walk.declarations().items():
        key = f"train.{declared.key.trl}"
        read = key in settings and config.method in declared.methods
        if declared.key.trl and read and walk.value_at(config, path) is not None:
            settings.setdefault(declared.dotted, settings[key])
    return settings


def _joined(observations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One map of several; where two places hold different values, both are told."""
    settings: dict[str, Any] = {}
    for observed in observations:
        for key, value in observed.items():
            if key not in settings or same(settings[key], value):
                settings[key] = value
            else:
                settings[key] = f"{settings[key]!r} here and {value!r} there"
    return settings


def _optimizer(trainer: Any) -> dict[str, Any]:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    expected, _ = trainer.get_optimizer_cls_and_kwargs(trainer.args)
    settings = {}
    if type(optimizer) is not expected:
        settings["train.optim"] = type(optimizer).__name__
    groups = optimizer.param_groups
    settings["train.learning_rate"] = _only(
        g.get("initial_lr", g["lr"]) for g in groups
    )
    settings["train.weight_decay"] = max(g.get("weight_decay", 0.0) for g in groups)
    if "betas" in groups[0]:
        settings["train.adam_beta1"] = _only(group["betas"][0] for group in groups)
        settings["train.adam_beta2"] = _only(group["betas"][1] for group in groups)
        settings["train.adam_epsilon"] = _only(group["eps"] for group in groups)
    held = {id(weight) for group in groups for weight in group["params"]}
    trained = [w for w in trainer.model.parameters() if w.requires_grad]
    if any(id(weight) not in held for weight in trained):
        settings["train.optim"] = "an optimizer that lacks trained weights"
    return settings


def _schedule(trainer: Any) -> dict[str, Any]:
    """The learning rates of the first steps, beside those of a schedule made anew."""
    from transformers import get_scheduler

    live = trainer.lr_scheduler
    if not hasattr(live, "lr_lambdas"):
        return {}
    args, steps = trainer.args, trainer.state.max_steps
    rate = vars(live)["base_lrs"][0]
    weight = torch.nn.Parameter(torch.zeros(1))
    anew = get_scheduler(
        args.lr_scheduler_type,
        torch.optim.SGD([weight], lr=rate),
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )
    if not hasattr(anew, "lr_lambdas"):
        return {}
    for step in range(min(RATES, steps)):
        one, other = (schedule.lr_lambdas[0](step) for schedule in (live, anew))
        if not same(one, other):
            text = f"a schedule whose rate at step {step} is {one * rate:g}"
            return {"train.lr_scheduler_type": text, "train.warmup_steps": text}
    return {}


def _loader(subject: Subject) -> dict[str, Any]:
    """The batches that will be drawn."""
    trainer = subject.trainer
    loader = trainer.callback_handler.train_dataloader
    settings: dict[str, Any] = {}
    sampler = loader.batch_sampler
    while not hasattr(sampler, "drop_last") and hasattr(sampler, "batch_sampler"):
        sampler = sampler.batch_sampler
    if hasattr(sampler, "drop_last"):
        settings["train.dataloader_drop_last"] = sampler.drop_last
    inner = getattr(sampler, "sampler", None)
    for name, key in (("seed", "train.seed"), ("initial_seed", "train.data_seed")):
        if inner is not None and name in vars(inner) and vars(inner)[name] is not None:
            settings[key] = vars(inner)[name]
    if isinstance(subject.config, Policy) and inner is not None:
        known = vars(inner)
        settings["train.shuffle_dataset"] = known["shuffle"]
        settings["train.num_generations"] = known["mini_repeat_count"]
        settings["train.num_iterations"] = (
            known["repeat_count"] // trainer.args.steps_per_generation
        )
    settings["train.num_train_epochs"] = trainer.args.num_train_epochs
    if trainer.args.max_steps > 0:
        settings["train.max_steps"] = trainer.state.max_steps
    return settings


def _machine(trainer: Any) -> dict[str, Any]:
    accelerator = trainer.accelerator
    precision = accelerator.mixed_precision
    settings: dict[str, Any] = {
        "train.bf16": precision == "bf16",
        "train.fp16": precision == "fp16",
        "launch.processes": accelerator.num_processes,
    }
    model = accelerator.unwrap_model(trainer.model)
    checkpointing = any(
        vars(module).get("gradient_checkpointing") for module in model.modules()
    )
    settings["train.gradient_checkpointing"] = checkpointing
    if not trainer.is_fsdp_enabled:
        settings["train.fsdp"] = []
    if not trainer.is_deepspeed_enabled:
        settings["train.deepspeed"] = None
    if (
        trainer.train_dataset is not None
        and trainer.args.__class__.__name__ == "SFTConfig"
    ):
        packed = "seq_lengths" in trainer.train_dataset.column_names
        wrapped = trainer.args.packing and trainer.args.packing_strategy == "wrapped"
        settings["train.packing"] = packed or wrapped
    return settings


def _model(config: Stepped, trainer: Any) -> dict[str, Any]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = model.config
    text = base.get_text_config()
    settings: dict[str, Any] = {
        "model.dtype": str(model.dtype).removeprefix("torch."),
        "model.attention": base._attn_implementation,
        "model.path": config.model.path,
    }
    if config.model.path is not None and base._name_or_path:
        same_model = Path(base._name_or_path).name == Path(config.model.path).name
        if not same_model and not Path(config.model.path, "manifest.json").is_file():
            settings["model.path"] = base._name_or_path
    for key in ("dtype", "attention"):
        if vars(config.model)[key] == "auto":
            settings[f"model.{key}"] = "auto"
    if config.model.build is not None:
        for ours, theirs in _BUILD.items():
            settings[f"model.build.{ours}"] = vars(text)[theirs]
        settings["model.build.tokenizer"] = _tokenizer(config.model.build, trainer)
    trained = {n for n, w in model.named_parameters() if w.requires_grad}
    if config.model.lora is None:
        whole = {n for n, w in model.named_parameters() if w.is_floating_point()}
        if trained != whole:
            settings["model.path"] = f"{len(whole - trained)} weights are frozen"
    else:
        settings |= _lora(config.model.lora, model)
    if config.model.quantize is not None:
        known = plain(base.quantization_config)
        settings |= {f"model.quantize.{k}": v for k, v in known.items()}
    return settings


def _tokenizer(build: Build, trainer: Any) -> str:
    vocabulary = models.build_tokenizer(build.tokenizer, build.max_length).get_vocab()
    same_one = trainer.processing_class.get_vocab() == vocabulary
    return build.tokenizer if same_one else "another vocabulary"


_BUILD = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_length": "max_position_embeddings",
}


def _lora(stated: Mapping[str, Any], model: Any) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapter = model.active_adapter
    known = {k: plain(v) for k, v in vars(model.peft_config[adapter]).items()}
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    if not layers:
        return {f"model.lora.{key}": None for key in stated}
    settings = {f"model.lora.{key}": known[key] for key in stated if key in known}
    if "alpha" in stated:
        settings["model.lora.alpha"] = known["lora_alpha"]
    if "r" in stated:
        settings["model.lora.r"] = _only(layer.r[adapter] for layer in layers)
    if isinstance(stated.get("target_modules"), str):  # PEFT resolves a pattern
        settings["model.lora.target_modules"] = stated["target_modules"]
    return settings


def _rewards(config: Policy, trainer: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    weights = trainer.reward_weights.tolist()
    for reward, weight in zip(trainer.board.rewards, weights, strict=True):
        at = f"rewards.{reward.name}"
        function = reward.function
        options = function.keywords if isinstance(function, functools.partial) else {}
        inner = function.func if isinstance(function, functools.partial) else function
        for name, value in objective.in_force(inner, options).items():
            settings[f"{at}.{name}"] = plain(value)
        settings[f"{at}.weight"] = weight
        settings[f"{at}.deadline"] = reward.deadline
        zero = trainer.board.zero_on_error[reward.name]
        settings[f"{at}.on_error"] = "zero" if zero else "stop"
    return settings


def _data(subject: Subject) -> dict[str, Any]:
    """The data sets were read by the names and options that the manifest's hashes stand
    for; what is trained on must still be what was encoded of them.
    """
    stated = subject.config.data.model_dump(exclude_unset=True, exclude_none=True)
    now = first_encoded(subject.trainer)
    settings = {}
    for part, options in stated.items():
        names = options if isinstance(options, Mapping) else {"": options}
        for name, value in names.items():
            key = f"data.{part}.{name}".rstrip(".")
            unchanged = part != "train" or now == subject.encoded
            settings[key] = value if unchanged else "other rows than were encoded"
    return settings


def _only(values: Iterable[Any]) -> Any:
    """The one value of all, or the list of different ones."""
    known = [key for key, _ in itertools.groupby(sorted(values))]
    return known[0] if len(known) == 1 else known


def plain(value: Any) -> Any:
    """A value of a library as a recipe would state it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=str)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if dataclasses.is_dataclass(value) or hasattr(value, "to_dict"):
        return plain(dict(vars(value)))
    return value
