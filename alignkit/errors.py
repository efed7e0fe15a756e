"""Every error a user can meet. The exit code of the command line is the error's own.

An error says what was given, what was expected, what exists, and what to do.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unicodedata import category


class AlignError(Exception):
    """Base of all errors whose message alone tells the user what to do; shown without a
    traceback.
    """

    exit_code = 1


class InputError(AlignError):
    """The input is wrong: a recipe, a flag, a plugin, a data file. `problems` holds one
    text per fault.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = problems
        super().__init__("\n".join(problems))


class RecipeError(InputError):
    """A recipe cannot be used; each problem starts with `file:line:column:`."""


class PluginError(InputError):
    """A plugin or kit cannot be used; names the file and, where known, the line."""


class MissingError(AlignError):
    """Something needed is not on this machine (GPU, package, key, data); says what
    installs or sets it.
    """

    exit_code = 3

    def __init__(self, *missing: str) -> None:
        self.missing: tuple[str, ...] = missing
        super().__init__("\n".join(missing))


class WorkError(AlignError):
    """The input was right and everything was there, but the work itself failed."""


class StallError(AlignError):
    """The work did not come back within its deadline; says where its stacks are."""

    exit_code = 3


# How torch, the loader of libraries and the system say that there is no more memory.
_NO_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "map segment")


def no_memory(error: BaseException) -> str:
    """What is said where the system gives a process no more memory; empty for another
    error.
    """
    if not isinstance(error, MemoryError) and not any(
        word in str(error) for word in _NO_MEMORY
    ):
        return ""
    return (
        "out of memory: the system, or a limit (ulimit -v), gives this process no more"
        f" ({(first_line(error) or type(error).__name__):.120}). Take a smaller model,"
        " shorter lengths or a smaller train.per_device_train_batch_size, or raise the"
        " limit"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known name, or the list of what exists."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {listing(names)}" if names else "there are none"


def first_line(error: BaseException) -> str:
    """What an error of a library says first."""
    return str(error).strip().split("\n")[0]


def ending(text: str, limit: int) -> str:
    """The last lines of a text that fit into `limit` characters, whole; of a last line
    that does not fit its first words.
    """
    lines = text.strip().splitlines() or [""]
    if len(lines[-1]) > limit:
        words = lines[-1][:limit].rpartition(" ")[0] or lines[-1][:limit]
        return f"{words} … ({len(lines[-1])} characters)"
    kept = [lines.pop()]
    while lines and sum(map(len, kept)) + len(kept) + len(lines[-1]) <= limit:
        kept.insert(0, lines.pop())
    return "\n".join(kept)


def listing(names: Sequence[str], limit: int = 40) -> str:
    """Names joined by commas, cut with a count after `limit`."""
    shown = ", ".join(names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def place_of(function: Callable[..., Any]) -> str:
    """`file:line` where a function is defined."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def printable(text: str) -> str:
    """Without the characters that a terminal would obey or cannot be sent: controls,
    directions, half a pair; line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t\u200d" else c
        for c in text
    )


def asks_for(package: str, extra: str, why: str) -> MissingError:
    """The error for an optional package that a recipe or command asked for by name."""
    return MissingError(
        f"{why} needs the package '{package}', which is not installed: pip install"
        f" 'alignkit[{extra}]'"
    )
