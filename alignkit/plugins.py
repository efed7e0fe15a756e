"""Load plugins from kits, refuse what is wrong with them, and look them up by name."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from alignkit import hookspecs, kits
from alignkit.errors import PluginError, listing, nearest
from alignkit.types import (
    Advantage,
    Callback,
    DatasetSource,
    Eval,
    Judge,
    Loss,
    Prompt,
    Reward,
)

KINDS: dict[str, tuple[str, type[Any]]] = {
    "reward": ("align_rewards", Reward),
    "loss": ("align_losses", Loss),
    "advantage": ("align_advantages", Advantage),
    "eval": ("align_evals", Eval),
    "judge": ("align_judges", Judge),
    "dataset": ("align_datasets", DatasetSource),
    "prompt": ("align_prompts", Prompt),
    "callback": ("align_callbacks", Callback),
}
_HOOKS = {hook: (kind, cls) for kind, (hook, cls) in KINDS.items()}
# filled in by the core itself
_CORE_ARGUMENTS = {"dataset": ("split", "path", "seed", "limit")}
# What a recipe says to the core beside a plugin's options: an option of such a name
# would never reach the plugin.
TAKEN = {
    "reward": ("weight", "on_error", "deadline"),
    "loss": ("name", "normalize", "constant"),
    "advantage": ("name",),
    "dataset": ("dataset",),
    "eval": (
        "before",
        "after",
        "every",
        "limit",
        "split",
        "samples",
        "prompt",
        "data",
        "sampling",
        "judge",
    ),
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """A registered plugin and where it comes from."""

    kind: str
    name: str
    value: Any
    kit: str
    file: Path

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The functions whose keyword-only parameters are the plugin's options."""
        if self.kind in ("reward", "loss", "advantage"):
            return (self.value.function,)
        if self.kind == "dataset":
            return (self.value.load,)
        if self.kind == "eval":
            return tuple(
                f for f in (self.value.samples, self.value.score) if f is not None
            )
        return ()

    @property
    def where(self) -> str:
        """`file:line` of the plugin's first function, or the file."""
        return (
            f"{self.file}:{self.functions[0].__code__.co_firstlineno}"
            if self.functions
            else str(self.file)
        )

    def options(self) -> dict[str, inspect.Parameter]:
        """Keyword-only parameters by name: what a recipe may set."""
        found: dict[str, inspect.Parameter] = {}
        for function in self.functions:
            for name, parameter in inspect.signature(function).parameters.items():
                if (
                    parameter.kind is parameter.KEYWORD_ONLY
                    and name not in _CORE_ARGUMENTS.get(self.kind, ())
                ):
                    found[name] = parameter
        return found


def check_options(plugin: Plugin, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, problem) for every option that the plugin does not have, of a wrong
    type, or missing.
    """
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    problems: list[tuple[str, str]] = []
    known = plugin.options()
    hints = _hints(plugin)
    for name, value in options.items():
        if name not in known:
            hint = nearest(name, known) if known else "it has no options"
            problems.append(
                (
                    name,
                    (
                        f"{plugin.kind} '{plugin.name}' has no option '{name}'; {hint}"
                        f" ({plugin.where})"
                    ),
                )
            )
            continue
        try:
            # JSON mode is strict about types and yet takes a YAML list for a tuple.
            TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        except PydanticSchemaGenerationError:
            kind = inspect.formatannotation(hints[name])
            problems.append(
                (
                    name,
                    (
                        f"option '{name}' is of type {kind}, which no recipe can state"
                        f" ({plugin.where})"
                    ),
                )
            )
        except ValidationError as error:
            expected = inspect.formatannotation(hints[name])
            reason = error.errors()[0]["msg"]
            problems.append(
                (
                    name,
                    (
                        f"option '{name}' of {plugin.kind} '{plugin.name}' is {value!r};"
                        f" expected {expected}: {reason}"
                    ),
                )
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            problems.append(
                (
                    name,
                    (
                        f"{plugin.kind} '{plugin.name}' needs the option '{name}'"
                        f" ({plugin.where})"
                    ),
                )
            )
    return problems


def typed_options(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, checked already, as the types that the plugin declares (a YAML list
    as a tuple).
    """
    from pydantic import TypeAdapter

    hints = _hints(plugin)
    return {
        n: TypeAdapter(hints[n]).validate_json(json.dumps(v), strict=True)
        for n, v in options.items()
    }


def bind(
    plugin: Plugin, function: Callable[..., Any], options: Mapping[str, Any]
) -> Callable[..., Any]:
    """The function with those of the options that are its own; picklable when the
    function is.
    """
    own = {
        n
        for n, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    typed = typed_options(plugin, {n: v for n, v in options.items() if n in own})
    return functools.partial(function, **typed) if typed else function


def effective_options(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in force: the plugin's defaults, changed by those given."""
    defaults = {
        n: p.default for n, p in plugin.options().items() if p.default is not p.empty
    }
    return {**defaults, **options}


class Registry:
    """The plugins of the mounted kits, by kind and name."""

    def __init__(self, mounted: Sequence[kits.Kit]) -> None:
        self.kits = tuple(mounted)
        self.manager = pluggy.PluginManager("alignkit")
        self.manager.add_hookspecs(hookspecs)
        self._found: dict[str, dict[str, list[Plugin]]] = {kind: {} for kind in KINDS}

    def names(self, kind: str) -> list[str]:
        """Names of a kind, sorted; those that stand in several kits as `kit/name`."""
        names = []
        for name, plugins in self._found[kind].items():
            names += (
                [name] if len(plugins) == 1 else [f"{p.kit}/{name}" for p in plugins]
            )
        return sorted(names)

    def all(self, kind: str) -> list[Plugin]:
        """The plugins of a kind, sorted by name."""
        return [p for _, plugins in sorted(self._found[kind].items()) for p in plugins]

    def get(self, kind: str, name: str) -> Plugin:
        """The plugin of that name; `kit/name` picks one where several kits have it.

        Raises:
            PluginError: when there is none, or more than one.
        """
        kit, _, bare = name.rpartition("/")
        plugins = [
            p for p in self._found[kind].get(bare, []) if not kit or p.kit == kit
        ]
        if not plugins:
            raise PluginError(
                f"there is no {kind} '{name}'; {nearest(name, self.names(kind))}"
            )
        if len(plugins) > 1:
            both = " and ".join(str(p.file) for p in plugins)
            choose = " or ".join(f"'{p.kit}/{bare}'" for p in plugins)
            raise PluginError(
                f"{kind} '{name}' stands in several kits ({both}); write {choose}"
            )
        return plugins[0]

    def add(self, plugin: Plugin) -> None:
        """Register a plugin; the same name twice in one kit is an error."""
        same = self._found[plugin.kind].setdefault(plugin.name, [])
        for other in same:
            if other.kit == plugin.kit:
                raise PluginError(
                    f"{plugin.kind} '{plugin.name}' stands twice in kit '{plugin.kit}':"
                    f" {other.file} and {plugin.file}"
                )
        same.append(plugin)


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
                f"{_line(file, function)}: {name} is not marked; put @hookimpl above it"
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
        at = _line(file, vars(module)[pending[0]])
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
        for value in _guard(file, lambda hook=hook: list(hook())):
            if not isinstance(value, cls):
                given = type(value).__name__
                raise PluginError(
                    f"{_line(file, hook)}: {caller.name} must yield {cls.__name__}, got"
                    f" {given}: {value!r}"
                )
            plugin = Plugin(kind, value.name, value, kit.name, file)
            _check_name(plugin, hook)
            _check_signature(plugin)
            registry.add(plugin)


def _check_name(plugin: Plugin, hook: Callable[..., Any]) -> None:
    if not isinstance(plugin.name, str) or not re.fullmatch(r"\w[\w.-]*", plugin.name):
        raise PluginError(
            f"{_line(plugin.file, hook)}: {plugin.name!r} cannot be a {plugin.kind}'s"
            " name; use letters, digits, _ - ."
        )


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
                f"{_line(plugin.file, function)}: {plugin.kind} '{plugin.name}' cannot"
                f" be handed to the grading processes: {error}; define it with def at"
                " the top level of its file"
            ) from error
    hints = _hints(plugin)
    for function in plugin.functions:
        for name, parameter in inspect.signature(function).parameters.items():
            at = _line(plugin.file, function)
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
            if parameter.kind is parameter.KEYWORD_ONLY and name in TAKEN.get(
                plugin.kind, ()
            ):
                raise PluginError(
                    f"{at}: {plugin.kind} '{plugin.name}' cannot have an option"
                    f" '{name}': in a recipe it means something else there; call it"
                    " another name"
                )


def _hints(plugin: Plugin) -> dict[str, Any]:
    # Only keyword-only parameters matter; a tensor type named under TYPE_CHECKING need
    # not resolve.
    found: dict[str, Any] = {}
    for function in plugin.functions:
        scope = {**vars(inspect.getmodule(function) or ModuleType("none"))}
        for name, parameter in inspect.signature(function).parameters.items():
            if (
                parameter.kind is not parameter.KEYWORD_ONLY
                or parameter.annotation is parameter.empty
            ):
                continue
            hint = parameter.annotation
            if isinstance(hint, str):
                hint = _guard(plugin.file, eval, hint, scope)
            found[name] = hint
    return found


def _import(kit: kits.Kit, file: Path) -> ModuleType:
    dotted = f"{kits.__name__}.{kit.name}.{file.parent.name}.{file.stem}"
    return _guard(file, importlib.import_module, dotted)


def _guard(file: Path, action: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plugin's code; whatever it raises becomes a PluginError with file and line."""
    try:
        # standard output is the command's own, perhaps JSON
        with contextlib.redirect_stdout(sys.stderr):
            return action(*arguments)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError):
            raise PluginError(
                f"{error.filename or file}:{error.lineno or 1}: {error.msg}"
            ) from error
        own = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if Path(f.filename) == file
        ]
        line = f":{own[-1].lineno}" if own else ""
        raise PluginError(f"{file}{line}: {type(error).__name__}: {error}") from error


def _line(file: Path, function: Callable[..., Any]) -> str:
    return f"{file}:{function.__code__.co_firstlineno}"


def hook_docs() -> dict[str, str]:
    """Every hook with its docstring."""
    return {
        hook: inspect.getdoc(getattr(hookspecs, hook)) or ""
        for hook, _ in KINDS.values()
    }
