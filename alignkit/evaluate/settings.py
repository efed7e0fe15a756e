"""What a command line says of evals: sampling, their options and data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, nearest
from alignkit.evaluate.planning import (
    SAMPLING,
    EvalRequest,
    Planned,
    plan_eval,
)
from alignkit.evaluate.responses import StoredResponses
from alignkit.recipe import options

if TYPE_CHECKING:
    from alignkit.plugins import Plugin, Registry

Settings = dict[str, dict[str, Any]]  # sampling, options, data


def settings(
    registry: Registry, plugins: Sequence[Plugin], sets: Sequence[str]
) -> dict[str, Settings]:
    """By eval, from `KEY=VALUE` (for every eval that has it) and `EVAL.KEY=VALUE`.

    Raises:
        InputError: every text that no eval can use.
    """
    changes: dict[str, Settings] = {
        plugin.name: {"sampling": {}, "options": {}, "data": {}} for plugin in plugins
    }
    problems: list[str] = []
    for text in sets:
        try:
            _place(text, registry, plugins, changes)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return changes


def _place(
    text: str,
    registry: Registry,
    plugins: Sequence[Plugin],
    changes: dict[str, Settings],
) -> None:
    names = ", ".join(changes)
    expected = f"KEY=VALUE or EVAL.KEY=VALUE with one of {names}"
    key, value = options.assignment(text, "--set", expected)
    scope, _, name = key.rpartition(".")
    if scope and scope not in changes:
        raise InputError(f"--set {text}: expected {expected}")
    known = set(SAMPLING)
    taken = False
    for plugin in plugins:
        if scope not in ("", plugin.name):
            continue
        dataset = registry.get("dataset", plugin.value.data.get("dataset", "jsonl"))
        homes = {
            "sampling": SAMPLING,
            "options": plugin.options(),
            "data": dataset.options(),
        }
        known |= {one for names in homes.values() for one in names}
        home = next((home for home, names in homes.items() if name in names), None)
        if home is not None:
            changes[plugin.name][home][name] = value
            taken = True
    if not taken:
        raise InputError(f"--set {text}: no such setting; {nearest(name, known)}")


def plan_all(
    requests: Iterable[EvalRequest],
    registry: Registry,
    stored: StoredResponses | None,
) -> list[Planned]:
    """All evals ready to run.

    Raises:
        InputError: every problem of all of them.
    """
    planned: list[Planned] = []
    problems: list[str] = []
    for request in requests:
        try:
            planned.append(plan_eval(request, registry, stored))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return planned
