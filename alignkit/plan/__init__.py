"""The dry run: what a recipe would do, its arithmetic, and what is missing on this
machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alignkit import kits
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, MissingError, PluginError
from alignkit.machine import gpus, hub
from alignkit.plan import estimate, hosts, machine
from alignkit.plan.memory import Lengths
from alignkit.plan.planned import Plan
from alignkit.plan.rows import read_rows
from alignkit.plan.verdict import facts, faults, told
from alignkit.provenance import identity, named
from alignkit.recipe import rules, trl
from alignkit.recipe.rules import batches, setting
from alignkit.recipe.schema import Model, Stage, Stepped

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

MINI = "recipes/overlays/mini.yaml"


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
    lengths: Lengths | None,
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
) -> tuple[Plan, Lengths | None]:
    config = recipe.stage
    found = Plan(
        name, config, plugins=[*named(recipe.resolved, registry).distinct.values()]
    )
    _read_code(found)
    found.arithmetic = batch_arithmetic(config)
    found.missing += machine.missing(config)
    tokenizer = _tokenizer(origin, found)
    if tokenizer is not None and isinstance(config, Stepped):
        from alignkit.models import text

        options = config.train.get("chat_template_kwargs")
        text.set_template_options(tokenizer, options)
    lengths = read_rows(config, registry, datasets, tokenizer, found)
    known = facts(origin, registry, tokenizer, found.rows.get("rows"))
    found.wrong += faults(config, origin, known)
    found.warnings += [told(problem) for problem in rules.warnings(config, known)]
    _evals(config, registry, datasets, found)
    hosts.fill(found, config, registry)
    return found, lengths


def _read_code(found: Plan) -> None:
    """What a plugin imports only when it is called may be broken: the run reads it for
    its fingerprint. alignkit's own plugins are tested.
    """
    for plugin in found.plugins:
        if plugin.kit == kits.BUILTIN:
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


def _evals(config: Stage, registry: Registry, datasets: Datasets, found: Plan) -> None:
    """The evals' data and judges, so that nothing is missing only after the training."""
    from alignkit.endpoint.judges import resolve
    from alignkit.evaluate import plan_eval
    from alignkit.train.evals import request

    for name, entry in config.evals.items():
        try:
            asked_for = request(config, name, registry)
            planned = plan_eval(asked_for, registry, datasets=datasets)
            task = asked_for.plugin.value.judge
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
