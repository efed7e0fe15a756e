"""Every hook a plugin can implement. A hook yields the dataclasses of its kind and
changes nothing else.

Mark an implementation with `alignkit.hookimpl`; a misspelt hook is an error.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from alignkit.benchmarks import Eval, EvalFamily, Judge
from alignkit.executors import Executor
from alignkit.types import (
    Advantage,
    Callback,
    DatasetSource,
    Loss,
    Prompt,
    Reward,
)

hookspec = pluggy.HookspecMarker("alignkit")
hookimpl = pluggy.HookimplMarker("alignkit")


@hookspec
def align_rewards() -> Iterable[Reward]:  # type: ignore[empty-body]
    """Reward functions, named under `rewards:` in a recipe and by `align grade
    --reward`.
    """


@hookspec
def align_losses() -> Iterable[Loss]:  # type: ignore[empty-body]
    """Losses, named by `loss.name`."""


@hookspec
def align_advantages() -> Iterable[Advantage]:  # type: ignore[empty-body]
    """How rewards become advantages, named by `advantage.name`."""


@hookspec
def align_evals() -> Iterable[Eval]:  # type: ignore[empty-body]
    """Benchmarks, named under `evals:` and by `align eval`."""


@hookspec
def align_eval_families() -> Iterable[EvalFamily]:  # type: ignore[empty-body]
    """Benchmarks of another library: a family NAME makes the evals `NAME:…`."""


@hookspec
def align_judges() -> Iterable[Judge]:  # type: ignore[empty-body]
    """Models that judge, named by `--judge`."""


@hookspec
def align_datasets() -> Iterable[DatasetSource]:  # type: ignore[empty-body]
    """Datasets, named by `data.train.dataset`."""


@hookspec
def align_prompts() -> Iterable[Prompt]:  # type: ignore[empty-body]
    """Prompt templates, named by `data.prompt`."""


@hookspec
def align_callbacks() -> Iterable[Callback]:  # type: ignore[empty-body]
    """Functions called when a run starts, logs a step, finishes an eval, ends; named
    under `callbacks:`.
    """


@hookspec
def align_executors() -> Iterable[Executor]:  # type: ignore[empty-body]
    """Where runs are worked on, named by `--executor`."""
