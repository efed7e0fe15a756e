"""One line of what `align plugins check` prints, and what holds for every kind."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass

from alignkit.errors import AlignError, MissingError

Test = Callable[[], str | None]  # returns what is wrong, or None


class Note(str):
    """What a test saw that may be meant, and is no fault."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. `ok` is None where a plugin declares what would otherwise
    be a fault, and where something needed is missing.
    """

    kind: str
    plugin: str
    check: str
    ok: bool | None
    detail: str = ""


def needed(*functions: Callable[..., object]) -> str | None:
    """Why a plugin with options that have no default is not checked."""
    names = [
        name
        for function in functions
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if not names:
        return None
    return (
        f"not checked: it needs the option {', '.join(names)}; its own tests must do it"
    )


def outcome(kind: str, name: str, check: str, test: Test) -> Check:
    """The check that a test makes; a crash of the plugin is a fault like any other."""
    try:
        wrong = test()
    except MissingError as error:
        return Check(kind, name, check, None, f"not checked: {error}")
    except AlignError as error:
        wrong = str(error)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its crash is the result here
        wrong = f"raised {type(error).__name__}: {error}"
    if isinstance(wrong, Note):
        return Check(kind, name, check, None, wrong)
    return Check(kind, name, check, wrong is None, wrong or "")


def unless(holds: bool, fault: str) -> str | None:
    """The fault, unless what should hold does."""
    return None if holds else fault


def picklable(function: Callable[..., object]) -> str | None:
    """What is wrong with a plugin that must travel to other processes."""
    copy = pickle.loads(pickle.dumps(function))
    return unless(copy is not None, "is None after pickling")
