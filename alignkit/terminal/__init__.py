"""What is shown while and after work is done: every line, table and bar of alignkit
goes through here, so that text from outside stays text (tests/test_terminal.py finds
what does not).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alignkit.errors import MissingError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


def screen(stderr: bool = False) -> Console:
    """A console of rich that shows text as it is."""
    from alignkit.terminal.rendering import Screen

    return Screen(stderr)


def say(screen: Console, text: str, style: str | None = None) -> None:
    """A line, or several, that the terminal breaks and not rich."""
    screen.print(text, style=style, soft_wrap=True)


def mark(screen: Console, word: str, style: str, text: str) -> None:
    """A line behind a word in colour."""
    from rich.text import Text

    line = Text.assemble((word, style), printable(text))
    screen.print(line, soft_wrap=True)


@contextmanager
def waiting(screen: Console, text: str) -> Iterator[None]:
    """A spinner on a terminal, for what shows nothing by itself; elsewhere nothing."""
    from rich.text import Text

    with screen.status(Text(printable(text))):
        yield


def echo(text: str = "", err: bool = False, nl: bool = True) -> None:
    """A line without style, also for programs to read."""
    import click

    with printing():
        click.echo(printable(text), err=err, nl=nl)


@contextmanager
def printing() -> Iterator[None]:
    """A full disk behind standard output is one clear error; a reader that has gone is
    for the command to take.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # else Python tries again at its end, and fails
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise MissingError(
            f"the result cannot be written to standard output: {error.strerror}"
        ) from error


def print_json(value: object) -> None:
    """A result for programs."""
    echo(as_json(value))


def as_json(value: object) -> str:
    """JSON whose characters a terminal does not obey: those stand escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        c if printable(c) == c else json.dumps(c)[1:-1].replace("\x7f", "\\u007f")
        for c in text
    )


def trace(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    """The traceback of an error that nothing foresaw; its words may be a stranger's."""
    lines = traceback.format_exception(kind, error, where)
    sys.stderr.write(printable("".join(lines)))


class Progress:
    """A bar for each stage on a terminal; elsewhere a line at each tenth."""

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self._started = time.monotonic()
        self._tenths: dict[str, int] = {}
        self._bars: Bars | None = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int, numbers: str = "") -> None:
        """`done` of `total` are done; `numbers` stands beside it."""
        if self.console.is_terminal:
            self._show(stage, done, total, numbers)
            return
        tenth = 10 * done // total if total else 10
        if tenth > self._tenths.get(stage, 0):
            self._tenths[stage] = tenth
            seconds = time.monotonic() - self._started
            line = f"{self.title}: {stage} {done}/{total}  {seconds:.0f} s  {numbers}"
            say(self.console, line.rstrip())

    def close(self) -> None:
        """Take the bars away, also after an error."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks = {}

    def _show(self, stage: str, done: int, total: int, numbers: str) -> None:
        from rich import progress

        if self._bars is None:
            self._bars = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[numbers]}", markup=False),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        if stage not in self._tasks:
            name = f"{self.title}: {stage}"
            self._tasks[stage] = self._bars.add_task(
                name, total=total, completed=done, numbers=""
            )
        task = self._bars.tasks[self._bars.task_ids.index(self._tasks[stage])]
        if not numbers and task.speed:
            numbers = f"{task.speed:.1f}/s"
        self._bars.update(self._tasks[stage], completed=done, numbers=numbers)
