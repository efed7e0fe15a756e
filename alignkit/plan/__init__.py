"""The dry run: what a recipe would do, its arithmetic, and what is missing on this
machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from alignkit import data, kits, plugins
from alignkit.data.datasets import Datasets
from alignkit.errors import AlignError, InputError, MissingError, PluginError
from alignkit.machine import gpus, hub
from alignkit.plan import estimate, machine
from alignkit.plan.verdict import facts, faults
from alignkit.provenance import identity, named
from alignkit.recipe import trl
from alignkit.recipe.rules import batches, setting
from alignkit.recipe.schema import ExpertIteration, Model, Sampled, Stage

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

MINI = "recipes/overlays/mini.yaml"


@dataclass(slots=True)
class Plan:
    """What was found out about one trained stage, without training."""

    name: str
    config: Stage
    plugins: list[plugins.Plugin] = field(default_factory=list)
    arithmetic: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    prompt: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)  # only where asked for
    missing: list[str] = field(default_factory=list)  # exit 3
    wrong: list[str] = field(default_factory=list)  # exit 2

    def record(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "name": self.name,
            "method": self.config.method,
            "plugins": [
                {"kind": p.kind, "name": p.name, "file": str(p.file)}
                for p in self.plugins
            ],
            "arithmetic": self.arithmetic,
            "rows": self.rows,
            "prompt": self.prompt,
            "estimate": self.estimate,
            "missing": self.missing,
            "wrong": self.wrong,
        }


def plan(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets | None = None,
    *,
    estimates: bool = False,
) -> list[Plan]:
    """One plan per trained recipe: the recipe itself, or each stage of a pipeline.
    Estimates take a second more. `datasets` keeps the rows for what comes after.
    """
    datasets = datasets or Datasets(registry)
    stages = recipe.trained
    plans = []
    for name, stage in stages.items():
        config = stage.stage
        origin = _origin(config.model, stages)
        planned, lengths = _plan(name, stage, origin, registry, datasets)
        if estimates:
            _estimate(planned, stage, stages, lengths)
        plans.append(planned)
    return plans


def _estimate(
    planned: Plan,
    stage: Recipe,
    stages: Mapping[str, Recipe],
    lengths: estimate.Lengths | None,
) -> None:
    from alignkit.models.shape import shape

    config = stage.stage
    here, model, origin = gpus.cards(), config.model, _origin(config.model, stages)
    dtype = model.dtype if model.dtype != "auto" else "bfloat16" if here else "float32"
    size = None
    if (
        not any(text.startswith("model ") for text in planned.missing)
        and not planned.wrong
    ):
        size = shape(
            origin.path,
            origin.build,
            dtype=dtype,
            revision=origin.revision,
            lora=model.lora,
            quantize=model.quantize,
        )
    known = trl.fields(config.method)
    train = {name: setting(config, name) for name in estimate.SETTINGS if name in known}
    if not here:  # as arguments.py does
        train["gradient_checkpointing"] = config.train.get(
            "gradient_checkpointing", False
        )
    planned.estimate |= estimate.of_stage(
        stage, planned.arithmetic, train, size, lengths, here
    )


def _origin(model: Model, stages: Mapping[str, Recipe]) -> Model:
    """The `model` section of the stage that a stage's model goes back to."""
    while model.path is not None and model.path.startswith("stage:"):
        model = stages[model.path.removeprefix("stage:")].stage.model
    return model


def require(
    plans: Sequence[Plan], recipe: Recipe, overlays: Sequence[str] = ()
) -> None:
    """Refuse to start what cannot work.

    Raises:
        InputError: the recipe cannot work anywhere. MissingError: it cannot work here,
            with how to see it small.
    """
    wrong = [f"{recipe.path.name}: {text}" for p in plans for text in p.wrong]
    if wrong:
        raise InputError(*dict.fromkeys(wrong))
    missing = list(dict.fromkeys(text for p in plans for text in p.missing))
    if missing:
        small = f"to see it run small here: align run {recipe.path} --with {MINI}"
        raise MissingError(
            *missing, *([] if any("mini" in o for o in overlays) else [small])
        )


def _plan(
    name: str, recipe: Recipe, origin: Model, registry: Registry, datasets: Datasets
) -> tuple[Plan, estimate.Lengths | None]:
    config = recipe.stage
    found = Plan(
        name, config, plugins=[*named(recipe.resolved, registry).distinct.values()]
    )
    _read_code(found)
    found.arithmetic = batch_arithmetic(config)
    found.missing += machine.missing(config)
    tokenizer = _tokenizer(origin, found)
    lengths = _data(config, registry, datasets, tokenizer, found)
    known = facts(origin, registry, tokenizer, found.rows.get("rows"))
    found.wrong += faults(config, origin, known)
    _evals(config, registry, datasets, found)
    return found, lengths


def _read_code(found: Plan) -> None:
    """What a plugin imports only when it is called may be broken: the run reads it for
    its fingerprint. alignkit's own plugins are tested.
    """
    for plugin in found.plugins:
        if plugin.kit == kits.builtin().name:
            continue
        try:
            identity(plugin)
        except PluginError as error:
            found.wrong += error.problems


def batch_arithmetic(config: Stage) -> dict[str, Any]:
    """Rows per optimizer step and per generation batch."""
    b = batches.batches(config)
    found: dict[str, Any] = {
        "microbatch": b.microbatch,
        "accumulation": b.accumulation,
        "processes": b.processes,
        "rows per optimizer step": b.step,
    }
    if b.generation:
        found["completions per prompt"] = b.group
        found["completions per generation"] = b.generation
        found["prompts per generation"] = b.generation // b.group
        found["optimizer steps per generation"] = round(
            b.generation / b.step * b.iterations, 3
        )
    return found


def _tokenizer(model: Any, found: Plan) -> Any:
    """The tokenizer, or None where it is not here (missing)."""
    from alignkit import models

    try:
        if model.build is not None:
            return models.build_tokenizer(model.build.tokenizer, model.build.max_length)
        hub.require_model(model.path, model.revision)
        return models.load_tokenizer(model.path, model.revision)
    except MissingError as error:
        found.missing += error.missing
    except InputError as error:
        found.wrong += error.problems
    return None


def _data(
    config: Stage,
    registry: Registry,
    datasets: Datasets,
    tokenizer: Any,
    found: Plan,
) -> estimate.Lengths | None:
    try:
        parts = {
            part: datasets.rows(spec.stated, config.seed)
            for part, spec in config.data.parts().items()
        }
        rows = parts["train"]
        prompt = data.load_prompt(config.data.template, registry)
        first = (
            data.render_pair(prompt, rows[0])[0]
            if config.method == "sft"
            else data.render(prompt, rows[0])
        )
        for own in parts.values():
            _rewards(config, registry, own)
    except MissingError as error:
        found.missing += error.missing
        return None
    except AlignError as error:
        found.wrong += getattr(error, "problems", (str(error),))
        return None
    found.rows["rows"] = len(rows)
    steps = setting(config, "max_steps")
    if isinstance(config, ExpertIteration):
        asked = min(config.expert_iteration.questions, len(rows))
        found.arithmetic |= {
            "iterations": config.expert_iteration.iterations,
            "questions per iteration": asked,
            "rollouts per iteration": asked * config.expert_iteration.rollouts,
        }
    elif steps <= 0:
        # TRL leaves an incomplete one out
        generated = found.arithmetic.get("prompts per generation")
        count = (
            len(rows) // generated
            if generated
            else -(-len(rows) // found.arithmetic["rows per optimizer step"])
        )
        each = count * found.arithmetic.get("optimizer steps per generation", 1)
        steps = math.ceil(setting(config, "num_train_epochs") * each)
    if config.method != "expert_iteration":
        found.arithmetic["optimizer steps"] = steps
    found.prompt["text"] = first
    if tokenizer is None:
        return None
    if "validation" in parts:
        try:
            _encoded(config, _sample(parts["validation"]), prompt, tokenizer)
        except InputError as error:
            found.wrong += [f"data.validation: {text}" for text in error.problems]
    return _tokens(config, rows, prompt, tokenizer, found)


def _rewards(
    config: Stage, registry: Registry, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse rewards that cannot be called as they are written, and rows without the
    truth that one needs.
    """
    from alignkit.grading import bind_plugin

    for name, entry in (config.rewards if isinstance(config, Sampled) else {}).items():
        plugin = registry.get("reward", name)
        bind_plugin(plugin, entry.options)
        data.require_truth(plugin, rows)


def _tokens(
    config: Stage,
    rows: Sequence[Mapping[str, Any]],
    prompt: Any,
    tokenizer: Any,
    found: Plan,
) -> estimate.Lengths | None:
    """One row as the model sees it, how many rows the maximum lengths would cut or
    drop, and how long they are.
    """
    from alignkit.data import encode

    sample = _sample(rows)
    found.prompt |= {"eos": tokenizer.eos_token, "pad": tokenizer.pad_token}
    try:
        if config.method == "sft":
            masked = config.train.get("completion_only_loss") is not False
            before, response = data.render_pair(prompt, rows[0])
            ids, answer = encode.encode_pair(tokenizer, before, response)
            found.prompt |= {
                "tokens": len(ids),
                "trained on": len(answer) + (0 if masked else len(ids)),
            }
        elif config.method != "dpo":
            found.prompt["tokens"] = len(
                encode.prompt_ids(tokenizer, data.render(prompt, rows[0]))
            )
        dataset, kept, limit = _encoded(config, sample, prompt, tokenizer)
    except InputError as error:
        found.wrong += error.problems
        return None
    if config.method == "sft":
        tokens = [len(ids) for ids in dataset["input_ids"]]
    elif config.method == "dpo":
        texts = [
            row["prompt"] + row[side]
            for row in dataset
            for side in ("chosen", "rejected")
        ]
        tokens = [
            min(len(ids), limit or len(ids)) for ids in tokenizer(texts)["input_ids"]
        ]
    else:
        tokens = [len(encode.prompt_ids(tokenizer, row["prompt"])) for row in dataset]
    found.rows["dropped for a long prompt"] = kept.dropped_long_prompts / len(sample)
    found.rows["cut at the maximum length"] = kept.truncated / len(sample)
    return estimate.Lengths(len(tokens), sum(tokens) / len(tokens), max(tokens), limit)


def _sample(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Evenly spread: encoding every row of a large file takes minutes."""
    return rows[:: max(1, len(rows) // 512)]


def _encoded(
    config: Stage, rows: Sequence[Mapping[str, Any]], prompt: Any, tokenizer: Any
) -> tuple[Any, Any, int | None]:
    """Rows as the method's trainer takes them, what became of them, and the limit of
    their length.
    """
    from alignkit.data import encode

    iterated = isinstance(config, ExpertIteration)
    limit = None
    if iterated or not isinstance(config, Sampled):
        limit = setting(config, "max_length")
    if isinstance(config, Sampled):
        positions = min(tokenizer.model_max_length, 10**6)
        room = encode.prompt_room(config.generation, positions)
        return *encode.problems(rows, prompt, tokenizer, max_prompt=room), limit
    if config.method == "dpo":
        return *encode.preferences(rows, prompt, tokenizer, max_length=limit), limit
    masked = config.train.get("completion_only_loss") is not False
    return *encode.supervised(
        rows, prompt, tokenizer, max_length=limit, mask_prompt=masked
    ), limit


def _evals(config: Stage, registry: Registry, datasets: Datasets, found: Plan) -> None:
    """The evals' data and judges, so that nothing is missing only after the training."""
    from alignkit.endpoint.judges import resolve
    from alignkit.evaluate import plan_eval
    from alignkit.train.evals import request

    for name, entry in config.evals.items():
        try:
            asked_for = request(config, name, registry)
            planned = plan_eval(asked_for, registry, datasets=datasets)
            task = registry.get("eval", name).value.judge
            if entry.judge is not None:
                judge = resolve(registry, entry.judge)
                if judge.key is not None and not os.environ.get(judge.key):
                    found.missing.append(
                        f"evals.{name}: judge {judge.name} needs its key in the"
                        f" variable {judge.key}"
                    )
                if task is not None and judge.create is None:
                    times = entry.before + entry.after
                    if (
                        entry.every is not None
                        and "optimizer steps" in found.arithmetic
                    ):
                        times += found.arithmetic["optimizer steps"] // entry.every
                    asked = estimate.judging(
                        task, planned.samples, planned.sampling, times, judge.price
                    )
                    found.estimate.setdefault("judges", {})[name] = asdict(asked) | {
                        "judge": judge.name
                    }
        except MissingError as error:
            found.missing += [f"evals.{name}: {text}" for text in error.missing]
        except InputError as error:
            found.wrong += [f"evals.{name}: {text}" for text in error.problems]
