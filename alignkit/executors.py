"""What an executor is: where the runs of a sweep, or one run, are worked on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class LostError(Exception):
    """What worked on a task is gone, such as a node; the task itself said nothing of an
    end, so it may be tried again.
    """


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    name: str
    recipe: Path  # resolved: it needs no other file of recipes
    folder: Path  # of the run, not yet there or to go on with
    log: Path  # what it prints is added here
    # what worked on it is known to be gone, also where its machine cannot be asked
    take_over: bool = False

    def command(self) -> list[str]:
        """What begins the run, or goes on where it was begun: as its folder says at the
        moment, on the machine that works.
        """
        if (self.folder / "recipe.yaml").is_file():
            what = ["--resume", str(self.folder)]
            what += ["--take-over"] if self.take_over else []
        else:  # killed before the last of its first files was written
            shutil.rmtree(self.folder, ignore_errors=True)
            what = [str(self.recipe), "--folder", str(self.folder)]
        # -P: nothing of the current folder is imported
        return [sys.executable, "-P", "-m", "alignkit.cli", "run", *what]


class Workers(Protocol):
    """Works on tasks, at most `slots` at a time; handles are its own affair."""

    slots: int

    def submit(self, task: Task) -> Any:
        """Have a task worked on, and give a handle."""

    def poll(self, handle: Any) -> int | None:
        """The exit code, or None while it waits or works.

        Raises:
            LostError: what worked on it is gone.
        """

    def cancel(self, handle: Any) -> None:
        """Ask it to stop, as Ctrl-C does; a second time, end it. Poll tells when it has
        gone.
        """


@dataclass(frozen=True, slots=True)
class Executor:
    """`make(*, jobs, processes, options) -> Workers`, under a name for `--executor`.

    `jobs`: how many tasks at a time, None for as many as there is room for;
    `processes`: training processes of each, which take a GPU where there are any.
    """

    name: str
    make: Callable[..., Workers]
