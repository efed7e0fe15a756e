"""Where every process of a run stands: the stacks of all its threads, in a file."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

NAME = "stacks.txt"
ASKED = signal.SIGUSR2  # a process that takes the road writes its stacks
_FILE = "ALIGN_STACKS"  # the file, for the processes that this one starts
WRITING = 0.3  # seconds that a process may take to write


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[TextIO]:
    """The file of a run, empty; this process and those that it starts write to it."""
    with (folder / NAME).open("a", encoding="utf-8") as file:
        os.environ[_FILE] = str(folder.resolve() / NAME)
        faulthandler.register(ASKED, file)
        try:
            yield file
        finally:
            faulthandler.unregister(ASKED)
            del os.environ[_FILE]
            if not left(folder):
                forget(folder)


def left(folder: Path) -> bool:
    """Whether a run has left stacks."""
    file = folder / NAME
    return file.is_file() and file.stat().st_size > 0


def forget(folder: Path) -> None:
    """Those of the time before."""
    (folder / NAME).unlink(missing_ok=True)


def answer() -> None:
    """In a process that one with `shared` has started."""
    if file := os.environ.get(_FILE):
        with contextlib.suppress(OSError):
            # open as long as the process lives
            faulthandler.register(ASKED, os.open(file, os.O_WRONLY | os.O_APPEND))


def write(file: TextIO, tree: list[int]) -> None:
    """The stacks of these processes, each under its number and name.

    Safe for a process that does not know the signal: it is not sent one.
    """
    for pid in tree:
        file.write(f"\nprocess {pid}: {_name(pid)}\n")
        file.flush()
        if pid == os.getpid():
            faulthandler.dump_traceback(file)
        elif _catches(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, ASKED)
            time.sleep(WRITING)
        else:
            file.write(f"  tells no stack; state {_field(pid, 'State')}\n")
            file.flush()


def descendants(pid: int) -> list[int]:
    """The processes below one, parents first."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name in parentheses may hold anything
            parent = path.read_text(errors="replace").rpartition(")")[2].split()[1]
            parents.setdefault(int(parent), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def _name(pid: int) -> str:
    """Its rank, if it has one, and how it was started."""
    command = _read(pid, "cmdline").split("\0")
    own = "grading worker" if "alignkit.grading.worker" in " ".join(command) else ""
    ranks = [e for e in _read(pid, "environ").split("\0") if e.startswith("RANK=")]
    rank = ranks[0].replace("RANK=", "rank ") if ranks else ""
    started = "" if own else " ".join(command)[:200].strip()
    return ", ".join(filter(None, (own, rank, started)))


def _catches(pid: int) -> bool:
    caught = _field(pid, "SigCgt")
    return bool(caught) and bool(int(caught, 16) >> (ASKED - 1) & 1)


def _field(pid: int, name: str) -> str:
    """Of /proc/PID/status; empty where it is gone."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return ""


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
