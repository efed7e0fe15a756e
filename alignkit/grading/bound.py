"""A reward bound to its options, and one guarded call of it."""

from __future__ import annotations

import functools
import inspect
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from alignkit import plugins
from alignkit.errors import AlignError, InputError, PluginError, ending, place_of
from alignkit.types import Reward, Score

SAMPLE_ARGUMENTS = ("response", "truth", "prompt", "metadata", "tokens")
BATCH_ARGUMENTS = ("responses", "truths", "prompts", "metadatas", "tokens")


class Graded(NamedTuple):
    """A score and the seconds that its computation took (a repeated sample has those of
    the first).
    """

    score: Score
    seconds: float


@dataclass(frozen=True, slots=True)
class BoundReward:
    """A reward ready to be called: `function(*arguments)` with its options filled in."""

    name: str
    function: Callable[..., Any]
    # of SAMPLE_ARGUMENTS or BATCH_ARGUMENTS, in the function's order
    arguments: tuple[str, ...]
    form: Literal["sample", "batch"]
    is_async: bool
    where: Literal["pool", "process"]
    deadline: float  # seconds per sample
    weight: float = 1.0


def bind(
    reward: Reward, options: Mapping[str, object] | None = None, *, weight: float = 1.0
) -> BoundReward:
    """Read what a reward function wants from its positional parameters, and fill in its
    options.

    Raises:
        PluginError: a parameter that is none of the known ones, samples mixed with
            batches, or a place it cannot run.
    """
    function = reward.function
    arguments = tuple(
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY
    )
    per_sample = set(arguments) <= set(SAMPLE_ARGUMENTS)
    form: Literal["sample", "batch"] = "sample" if per_sample else "batch"
    if not arguments or (
        form == "batch" and not set(arguments) <= set(BATCH_ARGUMENTS)
    ):
        stated = ", ".join(arguments) or "nothing"
        raise PluginError(
            f"{place_of(function)}: reward '{reward.name}' takes {stated}; expected any"
            f" of {', '.join(SAMPLE_ARGUMENTS)} (per sample) or of"
            f" {', '.join(BATCH_ARGUMENTS)} (per batch), and options after `*`"
        )
    is_async = inspect.iscoroutinefunction(function)
    can_pool = form == "sample" and not is_async
    if reward.where == "pool" and not can_pool:
        raise PluginError(
            f"{place_of(function)}: reward '{reward.name}' says where='pool', but only"
            " a per-sample function that is not async runs there; leave `where` out"
        )
    pooled = can_pool and reward.where != "process"
    where: Literal["pool", "process"] = "pool" if pooled else "process"
    if options:
        function = functools.partial(function, **options)
    return BoundReward(
        reward.name, function, arguments, form, is_async, where, reward.deadline, weight
    )


def bind_plugin(
    plugin: plugins.Plugin, options: Mapping[str, object], *, weight: float = 1.0
) -> BoundReward:
    """`bind` for a registered plugin; its options become the types that the function
    declares.
    """
    bound = bind(plugin.value, weight=weight)
    return replace(bound, function=plugins.bind(plugin, plugin.value.function, options))


def bind_specs(
    registry: plugins.Registry, specs: Sequence[str]
) -> dict[str, BoundReward]:
    """{spec: reward} of each `NAME[:OPTION=VALUE,…]`.

    Raises:
        InputError: every unknown reward, unknown option and wrong value at once.
    """
    from alignkit.recipe import options  # what a worker does without

    rewards: dict[str, BoundReward] = {}
    problems: list[str] = []
    for spec in specs:
        try:
            name, stated = options.named(spec, "--reward")
            plugin = registry.get("reward", name)
        except InputError as error:
            problems += error.problems
            continue
        wrong = [problem for _, problem in plugins.check_options(plugin, stated)]
        problems += wrong
        if not wrong:
            rewards[spec] = bind_plugin(plugin, stated)
    if problems:
        raise InputError(*problems)
    return rewards


def as_score(value: object) -> Score:
    """What a reward returned, as a Score.

    Raises:
        TypeError: neither a Score nor a number. ValueError: a number that is not
            finite.
    """
    if isinstance(value, Score):
        return value
    if isinstance(value, bool | int | float) or hasattr(value, "__float__"):
        return Score(float(value))
    raise TypeError(
        f"a reward returns a Score or a number, got {type(value).__name__}:"
        f" {value!r:.80}"
    )


def call_sample(
    function: Callable[..., object], arguments: Sequence[object], *, apart: bool = False
) -> Graded:
    """One call. A crash of the function is a Score with status `error` and the
    traceback as explanation; so is its `SystemExit`, and its KeyboardInterrupt in a
    process `apart`, which no Ctrl-C reaches.

    Raises:
        AlignError: passed on: the user has to change something before any sample can be
            graded.
    """
    started = time.perf_counter()
    try:
        score = as_score(function(*arguments))
    except AlignError:
        raise
    except MemoryError:
        score = Score(
            0.0,
            "error",
            stage="memory",
            explanation="the memory limit of a grading worker was reached",
        )
    except BaseException as error:
        # a plugin may raise anything, and its crash is the result here
        if isinstance(error, KeyboardInterrupt) and not apart:
            raise
        score = crashed(error)
    return Graded(score, time.perf_counter() - started)


def crashed(error: BaseException) -> Score:
    """The score of a sample whose reward function raised."""
    text = "".join(traceback.format_exception(error, limit=-8))
    return Score(0.0, "error", stage="crash", explanation=ending(text, 4000))


def timed_out(seconds: float) -> Score:
    """The score of a sample whose grading was stopped."""
    return Score(
        0.0,
        "timeout",
        stage="deadline",
        explanation=f"not decided within {seconds:g} s: stopped",
    )
