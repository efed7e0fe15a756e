"""The rows of a stage: what they hold, one of them as the model sees it, their lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.datasets import Datasets
from alignkit.errors import AlignError, InputError, MissingError
from alignkit.plan.memory import Lengths
from alignkit.plan.planned import Plan
from alignkit.recipe.rules import setting
from alignkit.recipe.schema import ExpertIteration, Sampled, Stage

if TYPE_CHECKING:
    from alignkit.plugins import Registry


def read_rows(
    config: Stage,
    registry: Registry,
    datasets: Datasets,
    tokenizer: Any,
    found: Plan,
) -> Lengths | None:
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
) -> Lengths | None:
    """One row as the model sees it, how many rows the maximum lengths would cut or
    drop, and how long they are.
    """
    from alignkit.models import text

    sample = _sample(rows)

    def before(row: Mapping[str, Any]) -> list[int]:
        return text.prompt_ids(tokenizer, data.render(prompt, row))

    def pair(row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        return text.pair_ids(tokenizer, *data.render_pair(prompt, row))

    found.prompt |= {"eos": tokenizer.eos_token, "pad": tokenizer.pad_token}
    try:
        if config.method == "sft":
            masked = config.train.get("completion_only_loss") is not False
            ((ids, answer),) = text.each(rows[:1], pair, "training data")
            found.prompt |= {
                "tokens": len(ids),
                "trained on": len(answer) + (0 if masked else len(ids)),
            }
        elif config.method != "dpo":
            (ids,) = text.each(rows[:1], before, "training data")
            found.prompt["tokens"] = len(ids)
        dataset, kept, limit = _encoded(config, sample, prompt, tokenizer)
    except InputError as error:
        found.wrong += error.problems
        return None
    if config.method == "sft":
        tokens = [len(ids) for ids in dataset["input_ids"]]
    elif config.method == "dpo":
        whole = [
            len(row["prompt_ids"]) + len(row[side])
            for row in dataset
            for side in ("chosen_ids", "rejected_ids")
        ]
        tokens = [min(length, limit or length) for length in whole]
    else:
        tokens = [len(text.prompt_ids(tokenizer, row["prompt"])) for row in dataset]
    found.rows["dropped for a long prompt"] = kept.dropped_long_prompts / len(sample)
    found.rows["cut at the maximum length"] = kept.truncated / len(sample)
    return Lengths(len(tokens), sum(tokens) / len(tokens), max(tokens), limit)


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
    return (
        *encode.supervised(
            rows, prompt, tokenizer, max_length=limit, mask_prompt=masked
        ),
        limit,
    )
