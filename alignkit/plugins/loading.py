"""Load plugins from kits, and refuse what is wrong with them."""

from __future__ import annotations

import importlib
import inspect
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from alignkit import kits
from alignkit.errors import PluginError, listing, nearest, place_of
from alignkit.plugins.plugin import KINDS, NAME, RESERVED, Plugin, guard
from alignkit.plugins.registry import Registry

_HOOKS = {hook: (kind, cls) for kind, (hook, cls) in KINDS.items()}


def load(found: Sequence[kits.Kit]) -> Registry:
    """Mount the kits, import their plugin files, check every hook, and register what
    they yield.

    Raises:
        PluginError: one problem per faulty file: it fails to import, has a misspelt or
            unmarked hook, yields the wrong type, or gives a name twice.
    """
    registry = Registry(found)
    problems: list[str] = []
    for kit in found:
        kits.mount(kit)
        for file in kit.plugin_files():
            try:
                _register(registry, kit, file)
            except PluginError as error:
                problems += error.problems
    problems += _reserved(registry)
    if problems:
        raise PluginError(*problems)
    return registry


def load_kit(root: Path | str) -> Registry:
    """The plugins of one kit beside the built-in ones: what a kit's own tests use."""
    return load(kits.find(folders=[root]))


def _register(registry: Registry, kit: kits.Kit, file: Path) -> None:
    module = _import(kit, file)
    for name, function in vars(module).items():
        if (
            inspect.isfunction(function)
            and name.startswith("align_")
            and not hasattr(function, "alignkit_impl")
        ):
            raise PluginError(
                f"{place_of(function)}: {name} is not marked; put @hookimpl above it"
            )
    try:
        registry.manager.register(module, name=str(file))
        registry.manager.check_pending()
    except pluggy.PluginValidationError as error:
        if registry.manager.is_registered(module):
            registry.manager.unregister(module)
        pending = [
            n
            for n, f in vars(module).items()
            if hasattr(f, "alignkit_impl") and n not in _HOOKS
        ]
        if not pending:
            raise PluginError(f"{file}: {error}") from error
        at = place_of(vars(module)[pending[0]])
        raise PluginError(
            f"{at}: there is no hook '{pending[0]}'; {nearest(pending[0], _HOOKS)}"
        ) from error
    callers = registry.manager.get_hookcallers(module)
    if not callers:
        raise PluginError(
            f"{file}: no hook in it; a plugin file implements one of"
            f" {listing(sorted(_HOOKS))}"
        )
    for caller in callers:
        kind, cls = _HOOKS[caller.name]
        hook = vars(module)[caller.name]
        for value in guard(file, lambda hook=hook: list(hook())):
            if not isinstance(value, cls):
                given = type(value).__name__
                raise PluginError(
                    f"{place_of(hook)}: {caller.name} must yield {cls.__name__}, got"
                    f" {given}: {value!r}"
                )
            plugin = Plugin(kind, value.name, value, kit.name, file)
            _check_name(plugin, hook)
            _check_signature(plugin)
            registry.add(plugin)


def _check_name(plugin: Plugin, hook: Callable[..., Any]) -> None:
    if not isinstance(plugin.name, str) or not NAME.fullmatch(plugin.name):
        raise PluginError(
            f"{place_of(hook)}: {plugin.name!r} cannot be a {plugin.kind}'s"
            " name; use letters, digits, _ - ."
        )


def _reserved(registry: Registry) -> list[str]:
    """Evals and their options that are called as the way to name others."""
    families = registry.all("eval_family")
    twice = [family for family in families if family.name in RESERVED]
    problems = [f"{p.where}: '{p.name}:' names rows of a file already" for p in twice]
    words = {*RESERVED, *(family.name for family in families)}
    for plugin in registry.all("eval"):
        if taken := {plugin.name, *plugin.options()} & words:
            word = min(taken)
            problems.append(
                f"{plugin.where}: no eval or option of one can be called '{word}':"
                f" {word}:… names others; use another name"
            )
    return problems


def _check_signature(plugin: Plugin) -> None:
    for function in plugin.functions:
        if not inspect.isfunction(function):
            raise PluginError(
                f"{plugin.file}: {plugin.kind} '{plugin.name}' needs a function (def),"
                f" got {function!r:.80}"
            )
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError) as error:
            raise PluginError(
                f"{place_of(function)}: {plugin.kind} '{plugin.name}' cannot"
                f" be handed to the grading processes: {error}; define it with def at"
                " the top level of its file"
            ) from error
    if plugin.kind == "reward" and plugin.value.asks is not None:
        asks = inspect.signature(plugin.value.asks).parameters
        if unknown := sorted(asks.keys() - plugin.options().keys()):
            raise PluginError(
                f"{place_of(plugin.value.asks)}: asks takes {unknown[0]}, which is no"
                f" option of reward '{plugin.name}'"
            )
    hints = plugin.hints()
    for function in plugin.functions:
        for name, parameter in inspect.signature(function).parameters.items():
            at = place_of(function)
            if parameter.kind is parameter.VAR_KEYWORD:
                raise PluginError(
                    f"{at}: {plugin.kind} '{plugin.name}' takes **{name}; name each"
                    " option, or typos pass"
                )
            if parameter.kind is parameter.KEYWORD_ONLY and name not in hints:
                raise PluginError(
                    f"{at}: option '{name}' of {plugin.kind} '{plugin.name}' has no"
                    " type annotation"
                )


def _import(kit: kits.Kit, file: Path) -> ModuleType:
    dotted = f"{kits.__name__}.{kit.name}.{file.parent.name}.{file.stem}"
    return guard(file, importlib.import_module, dotted)
