"""Which servers a recipe would ask, and with which key: refused before anything is sent
where nobody allowed it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from alignkit.endpoint import permits
from alignkit.endpoint.judges import resolve
from alignkit.errors import InputError
from alignkit.plan.planned import Plan
from alignkit.plugins import Plugin, effective_options
from alignkit.plugins.plugin import guard
from alignkit.recipe.schema import Policy, Stage

if TYPE_CHECKING:
    from alignkit.benchmarks import Judge
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

Asked = tuple[str, str, str | None]  # who asks, the base URL, the key's variable


def fill(found: Plan, config: Stage, registry: Registry) -> None:
    """Note in a plan who is asked."""
    try:
        servers = list(asked(config, registry))
    except InputError as error:  # no judge of that name
        found.wrong += error.problems
        return
    for who, base_url, variable in servers:
        try:
            url, host, _ = permits.checked_url(base_url)
            sent = permits.key_for(url, variable)
            permits.demand(url, sent)
        except InputError as error:
            found.wrong += [f"{who}: {text}" for text in error.problems]
        else:
            key = f"with the key in {sent}" if sent else "without a key"
            found.hosts.append(f"{who} asks {host} {key}")


def asked(config: Stage, registry: Registry) -> Iterator[Asked]:
    """Every server that a recipe would ask."""
    for who, name, options in _rewards(config):
        judge = asked_by(registry.get("reward", name), options)
        if judge is not None and judge.create is None:
            yield who, judge.base_url, judge.key
    for name, entry in config.evals.items():
        if entry.judge is not None:
            judge = resolve(registry, entry.judge)
            if judge.create is None:
                yield f"evals.{name}: judge {judge.name}", judge.base_url, judge.key
    vllm = config.generation.vllm if isinstance(config, Policy) else None
    if vllm is not None and vllm.server is not None:
        yield "generation.vllm.server", vllm.server, None


def asked_by(plugin: Plugin, options: Mapping[str, Any]) -> Judge | None:
    """The judge that a reward with these options asks, as it says itself."""
    asks = plugin.value.asks
    if asks is None:
        return None
    known = effective_options(plugin, options)
    named = {name: known[name] for name in inspect.signature(asks).parameters}
    judge: Judge = guard(plugin.file, lambda: asks(**named))
    return judge


def typed(recipe: Recipe, registry: Registry) -> list[permits.Pair]:
    """What `--set` names of it: the user's own word. A place that also a file has a say
    in is not.
    """
    pairs: list[permits.Pair] = []
    for stage in recipe.trained.values():
        config = stage.stage

        def by_hand(key: str, stage: Recipe = stage) -> bool:
            origin = stage.origins.get(key)
            return origin is not None and origin.kind == "set"

        for who, name, options in _rewards(config):
            own = {n: v for n, v in options.items() if by_hand(f"{who}.{n}")}
            judge = asked_by(registry.get("reward", name), own) if own else None
            if judge is not None and judge.create is None:
                url = permits.checked_url(judge.base_url)[0]
                pairs.append((permits.place(url), judge.key))
        if by_hand("generation.vllm.server") and isinstance(config, Policy):
            assert config.generation.vllm is not None
            server = str(config.generation.vllm.server)
            pairs.append((permits.place(permits.checked_url(server)[0]), None))
    return pairs


def _rewards(config: Stage) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Where each reward stands, its name and options."""
    for name, entry in getattr(config, "rewards", {}).items():
        yield f"rewards.{name}", name, entry.options
    for name, own in config.evals.items():
        if own.reward is not None:
            yield f"evals.{name}.reward", own.reward.name, own.reward.options
