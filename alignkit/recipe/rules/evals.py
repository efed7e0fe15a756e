"""Evals of a run: who judges them, and by which the best model is chosen."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.schema import Sampled, Stepped, Trained


def judged_by_a_model(config: Trained, facts: Facts) -> Iterator[Problem]:
    """An eval that asks a judge needs one."""
    if facts.registry is None:
        return
    unjudged = {name for name, entry in config.evals.items() if entry.judge is None}
    for name in sorted(unjudged & set(facts.registry.names("eval"))):
        if facts.registry.get("eval", name).value.judge is not None:
            text = "is judged by a model; say which, such as judge: NAME of align plugins list"
            yield ("evals", name), text


def one_split(config: Trained, facts: Facts) -> Iterator[Problem]:
    """An eval's split stands once."""
    for name, entry in config.evals.items():
        if entry.split and entry.data is not None and entry.data.split:
            text = "the eval's own split says it already"
            yield ("evals", name, "data", "split"), text


@of(Stepped)
def best_of_evals(config: Stepped, facts: Facts) -> Iterator[Problem]:
    """The best model is chosen by a number of an eval."""
    if config.best is None:
        return
    metric = config.best.metric
    name = metric.removeprefix("eval/").partition("/")[0]
    if name in config.evals and metric.count("/") == 2:
        return
    numbers = [f"eval/{known}/…" for known in config.evals]
    if facts.registry is not None:
        evals = set(config.evals) & set(facts.registry.names("eval"))
        values = {known: facts.registry.get("eval", known).value for known in evals}
        numbers = [f"eval/{known}/{values[known].metric}" for known in sorted(evals)]
    text = f"given {metric!r}; the recipe's evals give: {', '.join(numbers) or 'none'}"
    yield ("best", "metric"), text


@of(Sampled)
def one_verdict(config: Sampled, facts: Facts) -> Iterator[Problem]:
    """One reward says what counts as correct."""
    named = [name for name, reward in config.rewards.items() if reward.decides]
    for name in named[1:]:
        yield ("rewards", name, "decides"), f"{named[0]} decides already"


RULES = (one_verdict, judged_by_a_model, one_split, best_of_evals)
