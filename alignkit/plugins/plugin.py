"""A plugin, and the kinds there are."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from alignkit.benchmarks import Eval, EvalFamily, Judge
from alignkit.errors import PluginError, place_of
from alignkit.executors import Executor
from alignkit.types import (
    Advantage,
    Callback,
    DatasetSource,
    Loss,
    Prompt,
    Reward,
)

KINDS: dict[str, tuple[str, type[Any]]] = {
    "reward": ("align_rewards", Reward),
    "loss": ("align_losses", Loss),
    "advantage": ("align_advantages", Advantage),
    "eval": ("align_evals", Eval),
    "eval_family": ("align_eval_families", EvalFamily),
    "judge": ("align_judges", Judge),
    "dataset": ("align_datasets", DatasetSource),
    "prompt": ("align_prompts", Prompt),
    "callback": ("align_callbacks", Callback),
    "executor": ("align_executors", Executor),
}
NAME = re.compile(r"\w[\w.-]*")
MEMBER = re.compile(r"\w[\w.()+-]*")  # of a family of evals; it names a folder
# Names of evals that stand for a way to have one: of rows, `data:FILE`.
RESERVED = ("data",)
# filled in by the core itself
CORE_ARGUMENTS = {
    "dataset": ("split", "path", "seed", "limit"),
    "executor": ("jobs", "processes"),
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
        if self.kind in ("eval_family", "executor"):
            return (self.value.make,)
        if self.kind == "eval":
            return tuple(
                f for f in (self.value.samples, self.value.score) if f is not None
            )
        return ()

    @property
    def where(self) -> str:
        """`file:line` of the plugin's first function, or the file."""
        return place_of(self.functions[0]) if self.functions else str(self.file)

    def options(self) -> dict[str, inspect.Parameter]:
        """Keyword-only parameters by name: what a recipe may set."""
        found: dict[str, inspect.Parameter] = {}
        for function in self.functions:
            for name, parameter in inspect.signature(function).parameters.items():
                if (
                    parameter.kind is parameter.KEYWORD_ONLY
                    and name not in CORE_ARGUMENTS.get(self.kind, ())
                ):
                    found[name] = parameter
        return found

    def hints(self) -> dict[str, Any]:
        """The types of the keyword-only parameters that are annotated.

        Only these are resolved: a tensor type named under TYPE_CHECKING need not be.
        """
        found: dict[str, Any] = {}
        for function in self.functions:
            scope = {**vars(inspect.getmodule(function) or ModuleType("none"))}
            for name, parameter in inspect.signature(function).parameters.items():
                hint = parameter.annotation
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    continue
                if isinstance(hint, str):
                    hint = guard(self.file, eval, hint, scope)
                if hint is not parameter.empty:
                    found[name] = hint
        return found


def guard(file: Path, action: Callable[..., Any], *arguments: Any) -> Any:
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
