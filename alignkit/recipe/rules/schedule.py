"""Steps, learning rate, evaluation, saving: what happens when."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe.rules import sources
from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.schema import ExpertIteration, Stepped, Trained

# These follow a metric of the evaluations; the others follow the steps.
METRIC_SCHEDULERS = ("reduce_lr_on_plateau", "greedy")


def scheduler_arguments(config: Trained, facts: Facts) -> Iterator[Problem]:
    """What `lr_scheduler_kwargs` must and may hold is in the scheduler's signature."""
    kind = setting(config, "lr_scheduler_type")
    scheduler, key = _schedulers()[kind], ("train", "lr_scheduler_kwargs")
    stated = setting(config, "lr_scheduler_kwargs") or {}
    if not isinstance(stated, Mapping) or scheduler.takes_any:
        return
    for name in stated:
        if name not in scheduler.options:
            text = f"lr_scheduler_type {kind} takes no such argument"
            yield (*key, name), f"{text}; {nearest(name, scheduler.options)}"
    for name in scheduler.required - set(stated):
        yield key, f"lr_scheduler_type {kind} needs {name}"
    if "min_lr_rate" in scheduler.options:
        lowest = [n for n in ("min_lr", "min_lr_rate") if stated.get(n) is not None]
        if len(lowest) != 1:
            yield key, f"lr_scheduler_type {kind} needs either min_lr or min_lr_rate"
    if stated.get("timescale") == 0:
        yield (*key, "timescale"), "given 0, expected at least 1"
    end = stated.get("lr_end", scheduler.options.get("lr_end"))
    rate = setting(config, "learning_rate")
    if isinstance(end, int | float) and rate <= end:
        text = f"{rate} is not above the end of the polynomial decay (lr_end {end})"
        yield ("train", "learning_rate"), text


def scheduler_needs_evaluations(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A scheduler that follows a metric needs one."""
    kind = setting(config, "lr_scheduler_type")
    if kind in METRIC_SCHEDULERS and setting(config, "eval_strategy") == "no":
        text = f"{kind} follows the validation loss: it needs data.validation and "
        yield ("train", "lr_scheduler_type"), text + "train.eval_strategy"


@of(Stepped)
def validation(config: Stepped, facts: Facts) -> Iterator[Problem]:
    """`data.validation` and `train.eval_strategy` belong together."""
    stated, strategy = (
        config.data.validation is not None,
        setting(config, "eval_strategy"),
    )
    if stated and strategy == "no":
        text = "is read only with train.eval_strategy: steps or epoch; for benchmarks use evals"
        yield ("data", "validation"), text
    if strategy != "no" and not stated:
        yield (
            ("train", "eval_strategy"),
            "needs data.validation; for benchmarks use evals",
        )


@of(ExpertIteration)
def validation_of_iterations(
    config: ExpertIteration, facts: Facts
) -> Iterator[Problem]:
    """Each iteration is a training of its own, on rows of its own."""
    if setting(config, "eval_strategy") != "no":
        text = "method expert_iteration has no validation rows; use evals"
        yield ("train", "eval_strategy"), text


def whole_intervals(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A number of steps is whole, or a share of them below 1."""
    for what in ("logging", "eval", "save"):
        every = _every(config, what)
        if every is not None and every > 1 and every != int(every):
            text = f"given {every}, expected a whole number, or a share below 1"
            yield ("train", f"{what}_steps"), text


def best_checkpoint(config: Trained, facts: Facts) -> Iterator[Problem]:
    """The best checkpoint is one that was evaluated when it was saved."""
    saving, evaluating = (setting(config, f"{n}_strategy") for n in ("save", "eval"))
    loading = setting(config, "load_best_model_at_end")
    key = ("train", "load_best_model_at_end")
    if (loading or saving == "best") and evaluating == "no":
        where = key if loading else ("train", "save_strategy")
        yield where, "needs evaluations: data.validation and train.eval_strategy"
        return
    if (
        saving == "best"
        and not loading
        and setting(config, "metric_for_best_model") is None
    ):
        text = "best needs train.metric_for_best_model, such as loss"
        yield ("train", "save_strategy"), text
    if not loading or saving == "best":
        return
    if saving != evaluating:
        text = (
            f"save_strategy is {saving}, eval_strategy {evaluating}; they must be equal"
        )
        yield key, text
        return
    save, evaluate = _every(config, "save"), _every(config, "eval")
    if save is not None and evaluate is not None and not _multiple(save, evaluate):
        text = f"save_steps ({save}) must be a multiple of eval_steps ({evaluate})"
        yield key, text


def best_metric_of_validation(config: Trained, facts: Facts) -> Iterator[Problem]:
    """The validation rows give the loss and nothing else; benchmarks have `best`."""
    metric = setting(config, "metric_for_best_model")
    used = setting(config, "load_best_model_at_end")
    used = used or setting(config, "save_strategy") == "best"
    used = used or setting(config, "lr_scheduler_type") in METRIC_SCHEDULERS
    if used and metric not in (None, "loss", "eval_loss"):
        text = (
            f"given {metric!r}, expected loss; to keep the best by a benchmark use best"
        )
        yield ("train", "metric_for_best_model"), text


def _every(config: Trained, what: str) -> float | None:
    """Steps between two, or a share of all; None where it goes by something else."""
    if setting(config, f"{what}_strategy") != "steps":
        return None
    every = setting(config, f"{what}_steps")
    # transformers evaluates as often as it logs where nothing is said
    return every if every else setting(config, "logging_steps")


def _multiple(save: float, evaluate: float) -> bool:
    if save < 1 and evaluate < 1:
        save, evaluate = save * 1_000_000, evaluate * 1_000_000
    return save % evaluate == 0


@dataclass(frozen=True)
class _Scheduler:
    """Read from the signature of the function that makes it."""

    options: Mapping[str, Any]  # with their defaults; None also where there is none
    required: frozenset[str]
    takes_any: bool


@functools.cache
def _schedulers() -> dict[str, _Scheduler]:
    """The schedulers of the installed transformers, by name."""
    file = "optimization.py"
    words, signatures = (
        sources.enum("trainer_utils.py", "SchedulerType"),
        sources.functions(file),
    )
    made = sources.table(file, "TYPE_TO_SCHEDULER_FUNCTION")
    return {
        words[key.rpartition(".")[2]]: _scheduler(signatures[function])
        for key, function in made.items()
    }


def _scheduler(arguments: ast.arguments) -> _Scheduler:
    names = [a.arg for a in arguments.args]
    defaults = [None] * (len(names) - len(arguments.defaults)) + list(
        arguments.defaults
    )
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    options = {n: d for n, d in zip(names, defaults, strict=True) if n not in given}
    return _Scheduler(
        {n: None if d is None else ast.literal_eval(d) for n, d in options.items()},
        frozenset(n for n, d in options.items() if d is None),
        arguments.kwarg is not None,
    )


RULES = (
    scheduler_arguments,
    scheduler_needs_evaluations,
    validation,
    validation_of_iterations,
    whole_intervals,
    best_checkpoint,
    best_metric_of_validation,
)
