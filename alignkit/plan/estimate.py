"""What a trained stage will cost: steps, tokens, rollouts, memory, files, judges, and
time where it was measured.

Counted, not guessed: parameters on the model itself (laid out without memory), lengths
on a sample of the rows. What depends on what the model will say is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import run
from alignkit.benchmarks import JudgeTask
from alignkit.endpoint import costs
from alignkit.endpoint.costs import CHARACTERS_PER_TOKEN, Estimate
from alignkit.engines.base import Sampling
from alignkit.errors import AlignError
from alignkit.plan.memory import (
    OPTIMIZERS,
    Lengths,
    longest_response,
    memory,
    optimizer_bytes,
    peak,
)
from alignkit.recipe.schema import ExpertIteration, Policy, Sampled, Stage, Vllm
from alignkit.types import Sample

if TYPE_CHECKING:
    from alignkit.machine.gpus import Gpu
    from alignkit.models.shape import Shape
    from alignkit.recipe import Recipe

SETTINGS = (  # of `train:`
    *(
        "optim",
        "gradient_checkpointing",
        "fsdp",
        "per_device_train_batch_size",
        "num_train_epochs",
        "beta",
    ),
    *(
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "vllm_gpu_memory_utilization",
    ),
)


def of_stage(
    stage: Recipe,
    arithmetic: Mapping[str, Any],
    train: Mapping[str, Any],
    shape: Shape | None,
    lengths: Lengths | None,
    here: Sequence[Gpu],
) -> dict[str, Any]:
    """The estimate of one stage by section (work, model, memory, files, time), in
    tokens, bytes and seconds.

    `arithmetic` is that of its plan, `train` the values of `SETTINGS` in force, `here`
    the machine's cards. `shape` is None where the model's configuration is not here,
    `lengths` where a tokenizer or the data are not.
    """
    config = stage.stage
    # expert iteration's depend on what is kept
    steps = arithmetic.get("optimizer steps")
    planned = steps is not None or "iterations" in arithmetic
    found: dict[str, Any] = (
        {"work": work(config, arithmetic, lengths)} if planned else {}
    )
    if shape is not None:
        batch = (
            arithmetic.get("completions per generation", 0) // config.launch.processes
        )
        parts = memory(config, train, shape, lengths, batch)
        found["model"] = {"parameters": shape.parameters, "trainable": shape.trainable}
        cards = [[card.name, card.total * 2**20] for card in here if card.total]
        found["memory"] = {"parts": parts, "peak": peak(parts), "cards": cards}
        if isinstance(config, Policy) and config.generation.engine == "vllm":
            vllm = config.generation.vllm or Vllm()
            share = vllm.gpu_memory_utilization or train["vllm_gpu_memory_utilization"]
            if vllm.mode == "colocate":
                found["memory"]["vllm share"] = share
        if planned:
            found["files"] = files(config, train, shape, steps)
    rate = measured_rate(stage, here)
    if rate is not None and steps is not None:
        found["time"] = {"seconds": round(rate[0] * steps), "measured in": str(rate[1])}
    return found


def work(
    config: Stage, arithmetic: Mapping[str, Any], lengths: Lengths | None
) -> dict[str, Any]:
    """Rollouts and tokens of the whole training; upper bounds say so."""
    found: dict[str, Any] = {}
    rollouts = isinstance(config, Sampled)
    if config.method == "expert_iteration":
        sequences = arithmetic["iterations"] * arithmetic["rollouts per iteration"]
        found["rollouts"] = sequences
    elif rollouts:
        generations = -(
            -arithmetic["optimizer steps"]
            // arithmetic["optimizer steps per generation"]
        )
        found["rollouts"] = sequences = (
            int(generations) * arithmetic["completions per generation"]
        )
    else:
        pair = 2 if config.method == "dpo" else 1
        sequences = (
            arithmetic["optimizer steps"] * arithmetic["rows per optimizer step"] * pair
        )
    if lengths is None:
        return found
    response = longest_response(config)
    what = "prompt tokens, mean" if rollouts else "tokens in a row, mean"
    found |= {what: round(lengths.mean, 1), "rows measured": lengths.rows}
    if config.train.get("packing"):
        found["tokens, at most"] = sequences * (lengths.limit or lengths.longest)
    elif rollouts:
        found["tokens, at most"] = round(sequences * (lengths.mean + response))
    else:
        found["tokens, about"] = round(sequences * lengths.mean)
        found["tokens, at most"] = sequences * (lengths.limit or lengths.longest)
    return found


def files(
    config: Stage, settings: Mapping[str, Any], shape: Shape, steps: int | None
) -> dict[str, Any]:
    """The run folder's large files: checkpoints (None where their number is not known)
    and models, in bytes.
    """
    checkpoint = shape.trainable_bytes if config.model.lora else shape.model_bytes
    if not settings["save_only_model"] and settings["optim"] in OPTIMIZERS:
        checkpoint += optimizer_bytes(settings["optim"], shape)
    count: int | None = 0
    if settings["save_strategy"] == "steps":
        every = settings["save_steps"]
        count = (
            None
            if steps is None
            else -(-steps // (every if every >= 1 else math.ceil(every * steps)))
        )
    elif settings["save_strategy"] != "no":
        count = (
            math.ceil(settings["num_train_epochs"])
            if settings["save_strategy"] == "epoch"
            else None
        )
    kept = count if count is None else min(count, settings["save_total_limit"] or count)
    models = 1
    if isinstance(config, ExpertIteration):
        models = config.expert_iteration.iterations
    return {
        "checkpoints": kept,
        "bytes of a checkpoint": checkpoint,
        "models": models,
        "bytes of a model": shape.model_bytes,
    }


def measured_rate(recipe: Recipe, here: Sequence[Gpu]) -> tuple[float, Path] | None:
    """Seconds per optimizer step (evals during training included) in the newest earlier
    run of the recipe's name.

    It counts only with the same model, training, generation and evals, and with the
    same GPUs.
    """
    from alignkit.recipe import load

    config, gpus = recipe.config, [card.name for card in here]
    for earlier in reversed(run.find_runs(Path(config.output.root))):
        done = earlier.manifest
        if done.get("name") != config.name or not done.get("training", {}).get("steps"):
            continue
        if done.get("hardware", {}).get("gpus", []) != gpus:
            continue
        try:
            resolved = load(earlier.folder / "recipe.yaml").resolved
        except AlignError:
            continue
        if all(
            _timed(resolved.get(key)) == _timed(recipe.resolved.get(key))
            for key in _DECIDES
        ):
            return (
                done["training"]["seconds"] / done["training"]["steps"],
                earlier.folder,
            )
    return None


_DECIDES = ("method", "model", "generation", "train", "launch", "evals")


def _timed(section: Any) -> Any:
    """Without what changes how long a run is, not how fast it goes."""
    if not isinstance(section, dict):
        return section
    return {
        k: v
        for k, v in section.items()
        if k not in ("max_steps", "num_train_epochs", "learning_rate")
    }


def judging(
    task: JudgeTask,
    samples: Sequence[Sample],
    sampling: Sampling,
    times: int,
    price: float | None,
) -> Estimate:
    """What the judge of an eval will cost at most, when it runs so many times and every
    response is of full length.
    """
    responses = ["x" * (sampling.max_new_tokens * CHARACTERS_PER_TOKEN)] * sampling.n
    asked = [
        messages
        for sample in samples
        for text in responses
        for messages in task.conversations(sample, text)
    ]
    bodies = [
        {"messages": m, "max_tokens": Sampling(**task.sampling).max_new_tokens}
        for m in asked
    ]
    return costs.estimate(bodies * times, price)
