"""What is shown while and after work is done: lines and cells that hold text from
outside, and how far the work is.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from alignkit.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


def say(screen: Console, text: str, style: str | None = None) -> None:
    """Print a line that may hold text from outside, which neither the terminal nor
    rich may take for an instruction.
    """
    screen.print(
        printable(text), style=style, markup=False, highlight=False, soft_wrap=True
    )


def cell(text: object) -> str:
    """Text from outside as a table of rich shows it."""
    from rich.markup import escape

    return escape(printable(str(text)))


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
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        if stage not in self._tasks:
            name = cell(f"{self.title}: {stage}")
            self._tasks[stage] = self._bars.add_task(
                name, total=total, completed=done, numbers=""
            )
        task = self._bars.tasks[self._bars.task_ids.index(self._tasks[stage])]
        if not numbers and task.speed:
            numbers = f"{task.speed:.1f}/s"
        self._bars.update(self._tasks[stage], completed=done, numbers=numbers)
