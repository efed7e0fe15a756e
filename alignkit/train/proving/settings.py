"""What the live objects of a run hold of its settings, by the recipe's dotted keys."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from alignkit.proofs.settings import same
from alignkit.recipe.schema import Policy, Stepped, walk
from alignkit.train import objective
from alignkit.train.proving.model_settings import of_model, only, plain

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
    known += [_machine(trainer), of_model(config, trainer)]
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
    settings["train.learning_rate"] = only(g.get("initial_lr", g["lr"]) for g in groups)
    settings["train.weight_decay"] = max(g.get("weight_decay", 0.0) for g in groups)
    if "betas" in groups[0]:
        settings["train.adam_beta1"] = only(group["betas"][0] for group in groups)
        settings["train.adam_beta2"] = only(group["betas"][1] for group in groups)
        settings["train.adam_epsilon"] = only(group["eps"] for group in groups)
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
