"""What hangs is found: each phase of a run has a deadline, learned from its own earlier
times; past it the stacks of all processes are written and the run ends as `stalled`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from alignkit.errors import StallError, printable
from alignkit.run import stacks, stopping
from alignkit.run.files import now

if TYPE_CHECKING:
    from alignkit.run.folder import Run

Phase = Literal["generation", "sync", "grading", "forward_backward", "eval", "save"]

FIRST = 4 * 3600.0  # seconds of a phase of which nothing is known yet
LEAST = 1200.0  # seconds that a phase may always take
FACTOR = 20.0  # and this many times as long as it ever took
TICK = 0.5  # seconds between two looks
# The interpreter may be held by what hangs (a regular expression): so many seconds after
# the deadline a thread of C writes the stacks and ends the process.
HELD = 5.0


@dataclass
class _Open:
    """A phase that goes on; `began` moves on by what the phases within it take."""

    phase: Phase
    name: str
    began: float
    more: float  # seconds


class _Watch:
    """Looks at the open phase from a thread."""

    def __init__(
        self,
        run: Run,
        file: TextIO,
        stated: float | Mapping[Phase, float] | None,
        grace: float,
        again: str,
    ) -> None:
        self.run, self.file, self.stated, self.grace = run, file, stated, grace
        self.again = again
        self.open: list[_Open] = []
        self.longest: dict[str, float] = {}
        self.done = threading.Event()
        self.ending = False

    def allowed(self, phase: _Open) -> float:
        """Seconds that it may take."""
        if isinstance(self.stated, Mapping):
            stated = self.stated.get(phase.phase)
        else:
            stated = self.stated
        if stated is None:
            before = self.longest.get(phase.name)
            stated = FIRST if before is None else max(LEAST, FACTOR * before)
        return stated + phase.more

    def close(self, phase: _Open, now: float) -> None:
        spent = now - phase.began
        self.longest[phase.name] = max(spent, self.longest.get(phase.name, 0.0))

    def guard(self) -> None:
        """Set the thread of C on the open phase; this one may not get to look at it."""
        if self.done.is_set() or self.ending:
            return
        if not self.open:
            faulthandler.cancel_dump_traceback_later()
            return
        spent = time.monotonic() - self.open[-1].began
        self._unless_held(max(self.allowed(self.open[-1]) - spent, 0.0) + HELD)

    def work(self) -> None:
        while not self.done.wait(TICK):
            phase = self.open[-1] if self.open else None
            if phase is not None:
                spent, allowed = time.monotonic() - phase.began, self.allowed(phase)
                if spent > allowed:
                    self.end(phase, spent, allowed)
                    return

    def end(self, phase: _Open, spent: float, allowed: float) -> None:
        """Write the stacks; then the main thread may come back, save and leave by
        itself, or all is ended from here.
        """
        self.ending = True
        patience = self.grace + stopping.PATIENCE / 2
        self._unless_held(patience + 60)
        text = (
            f"{phase.name} has not come back for {spent:.0f} seconds (its deadline:"
            f" {allowed:.0f}), so the run has stalled; where every process stands:"
            f" {Path(self.file.name)}\nto go on: {self.again}"
        )
        if not self._told(text):  # another training process ends us all
            self.done.wait(patience + 30)
            os._exit(StallError.exit_code)
        stopping.ask()
        if self.done.wait(patience):
            return
        for pid in self._others():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        # a further training process writes too: the first one is dead
        run = self.run if self.run.writes else type(self.run).open(self.run.folder)
        run.update(status="stalled", error=text, finished=now())
        os.write(2, f"error: {printable(text)}\n".encode())
        os._exit(StallError.exit_code)

    def _told(self, text: str) -> bool:
        """Write what has happened and all stacks, if no other process has done so."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.file, fcntl.LOCK_EX)
        if os.fstat(self.file.fileno()).st_size:
            return False
        self.file.write(f"{text}\n")
        stacks.write(self.file, [os.getpid(), *self._others()])
        with contextlib.suppress(OSError):
            fcntl.flock(self.file, fcntl.LOCK_UN)
        return True

    def _others(self) -> list[int]:
        """What this process has started, and the other training processes."""
        top = os.getpid() if "RANK" not in os.environ else os.getppid()
        return [pid for pid in stacks.descendants(top) if pid != os.getpid()]

    def _unless_held(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self.file)


_watch: _Watch | None = None


@contextlib.contextmanager
def watched(
    run: Run,
    stated: float | Mapping[Phase, float] | None,
    grace: float,
    again: str,
) -> Iterator[None]:
    """Hold the phases of the work inside to their deadlines.

    Args:
        stated: seconds of each phase, or of these; what is left out is learned.
        grace: seconds in which what comes back may save a checkpoint.
        again: the command that goes on.

    Raises:
        StallError: a phase passed its deadline, and came back within `grace`.
    """
    global _watch
    with stacks.shared(run.folder) as file:
        watch = _watch = _Watch(run, file, stated, grace, again)
        thread = threading.Thread(target=watch.work, name="deadlines", daemon=True)
        thread.start()
        try:
            yield
        except stopping.Stopped:
            if said := text_of(run.folder):
                raise StallError(said) from None
            raise
        finally:
            _watch = None
            watch.done.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def phase(phase: Phase, name: str = "", more: float = 0.0) -> Iterator[None]:
    """A phase of the work, by default of the name `phase`; the phases within it have
    deadlines of their own, and their time is not its.

    `more`: seconds on top, for what has deadlines of its own.
    """
    watch = _watch
    if watch is None:
        yield
        return
    began = time.monotonic()
    opened = _Open(phase, name or phase, began, more)
    watch.open.append(opened)
    watch.guard()
    try:
        yield
    finally:
        now = time.monotonic()
        for outer in watch.open[:-1]:
            outer.began += now - began
        watch.open.remove(opened)
        watch.close(opened, now)
        watch.guard()


def again() -> None:
    """The open phase begins anew: a step follows a step."""
    if _watch is not None and _watch.open:
        last, now = _watch.open[-1], time.monotonic()
        _watch.close(last, now)
        last.began = now
        _watch.guard()


def text_of(folder: Path) -> str:
    """What was said of a run that has stalled; empty of any other."""
    try:
        with (folder / stacks.NAME).open(encoding="utf-8", errors="replace") as file:
            return "".join(file.readline() for _ in range(2)).strip()
    except OSError:
        return ""
