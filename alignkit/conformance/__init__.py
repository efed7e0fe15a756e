"""`align plugins check`: does a plugin of any kind keep the contract of its kind?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from alignkit import data
from alignkit.benchmarks import Judge
from alignkit.conformance.check import Check, Test, needed, outcome, unless
from alignkit.types import Prompt

if TYPE_CHECKING:
    from alignkit.conformance.laboratory import Laboratory
    from alignkit.plugins import Plugin, Registry

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
Tests = Iterator[tuple[str, Test]]


def prove(
    plugin: Plugin, registry: Registry, laboratory: Callable[[], Laboratory]
) -> list[Check]:
    """All checks of one plugin with its default options. `laboratory` makes the tiny
    model for losses.
    """
    from alignkit.conformance.advantages import check_advantage
    from alignkit.conformance.evals import eval_tests
    from alignkit.conformance.losses import check_loss
    from alignkit.conformance.rewards import reward_tests

    if plugin.kind == "loss":
        return check_loss(plugin.value, laboratory())
    if plugin.kind == "advantage":
        return check_advantage(plugin.value)
    if missing := needed(*plugin.functions):
        return [Check(plugin.kind, plugin.name, "options", None, missing)]
    tests: Callable[[Plugin, Registry], Tests] | None = {
        "reward": reward_tests,
        "eval": eval_tests,
        "judge": _judge,
        "dataset": _dataset,
        "prompt": _prompt,
    }.get(plugin.kind)
    if tests is None:
        return [Check(plugin.kind, plugin.name, "loads", True)]
    return [
        outcome(plugin.kind, plugin.name, name, test)
        for name, test in tests(plugin, registry)
    ]


def _judge(plugin: Plugin, registry: Registry) -> Tests:
    yield "endpoint", functools.partial(_endpoint, plugin.value)
    yield "key", functools.partial(_key, plugin.value)


def _endpoint(judge: Judge) -> str | None:
    return unless(
        judge.create is not None or judge.base_url.startswith(("http://", "https://")),
        f"base_url is {judge.base_url!r}; expected http(s)://…, or a `create` function",
    )


def _key(judge: Judge) -> str | None:
    return unless(
        judge.key is None or _NAME.fullmatch(judge.key) is not None,
        "key must be the NAME of an environment variable, never the key itself",
    )


def _dataset(plugin: Plugin, registry: Registry) -> Tests:
    yield "rows", functools.partial(_rows, plugin.name, registry)


def _rows(dataset: str, registry: Registry) -> str | None:
    first, second = (
        data.fingerprint(
            data.load_rows({"dataset": dataset, "limit": 20}, registry, seed=0)
        )
        for _ in range(2)
    )
    return unless(first == second, "the rows differ the second time")


def _prompt(plugin: Plugin, registry: Registry) -> Tests:
    yield "braces", functools.partial(_braces, plugin.value)


def _braces(prompt: Prompt) -> str | None:
    value = "f(x) = {x} and {question} {0}"
    text = str(data.render(prompt, {"question": value, "response": value}))
    return unless(
        value in text.replace("\\\\", "\\"),
        f"braces in a question were changed: {text[:200]!r}",
    )
