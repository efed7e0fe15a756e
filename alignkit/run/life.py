"""Whether the process that works on a run still lives: here, after a restart, in a
container, on another machine.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignkit.errors import InputError, MissingError, printable
from alignkit.run.files import now
from alignkit.run.locks import alive
from alignkit.run.manifest import read_manifest

BEAT = 20.0  # seconds between two signs of life in the manifest
_WHO = ("pid", "started", "host")
SILENCE = 120.0  # seconds without one after which a process elsewhere is dead


def signs() -> dict[str, Any]:
    """What a manifest says of the process that works: its machine, the machine's start,
    its number and its own start, and when it last gave a sign.
    """
    return {
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": platform.node(),
        "boot": _boot(),
        "heartbeat": now(),
    }


def lives(manifest: Mapping[str, Any]) -> bool | None:
    """Whether the process of a manifest still works; None when that cannot be decided.

    Containers of one machine have host names and process numbers of their own, so only
    the names of both, host and start, make this its machine.
    """
    boot, silence = manifest.get("boot"), silent(manifest)
    if manifest.get("host") == platform.node():
        if boot not in (None, _boot()):
            return False
        pid, started = manifest.get("pid", 0), manifest.get("started")
        return alive(pid) and started in (None, _started(pid))
    if silence is None:
        return None
    return None if silence < SILENCE else False


def silent(manifest: Mapping[str, Any]) -> float | None:
    """Seconds since the last sign; None where none is known. A clock that is ahead
    counts as now.
    """
    try:
        last = datetime.fromisoformat(str(manifest.get("heartbeat")))
        return max(0.0, (datetime.now(UTC) - last).total_seconds())
    except (ValueError, TypeError):
        return None


def require_gone(
    folder: Path, manifest: Mapping[str, Any], locked: bool, take_over: bool
) -> None:
    """Refuse to go on with a run whose process works, or may work.

    Args:
        locked: it held a lock, which is free now. That decides where its process ran
            under the system that runs now; elsewhere the file system may not tell.

    Raises:
        InputError: who works on it, and what to do.
    """
    same = bool(_boot()) and manifest.get("boot") == _boot()
    living = lives(manifest)
    here = manifest.get("host") == platform.node()
    # a restarted container counts anew
    itself = here and manifest.get("pid") == os.getpid()
    if living is False or itself or (locked and (same or here)):
        return
    who = f"process {manifest.get('pid')} on {manifest.get('host')}"
    if living:
        raise InputError(
            f"{folder} is still being worked on by {who}; wait, or stop it"
        )
    if take_over:
        return
    silence = silent(manifest)
    last = "gave no sign of life that is known"
    if silence is not None:
        last = (
            f"gave its last sign of life {silence:.0f} seconds ago (it counts as dead"
        )
        last += f" after {SILENCE:.0f})"
    raise InputError(
        f"{folder} may still be worked on by {who}, which {last}; if you know that it is"
        " gone: --take-over. While it lives, both write here, and what they write is"
        " neither's"
    )


@contextlib.contextmanager
def beating(
    file: Path, writing: threading.RLock, update: Callable[..., None]
) -> Iterator[None]:
    """Give a sign of life in a manifest every now and then, from a thread.

    When another process has taken the run over, this one ends on the spot.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(BEAT):
            with writing, contextlib.suppress(InputError, MissingError):
                said, mine = read_manifest(file), signs()
                if any(said.get(name) != mine[name] for name in _WHO):
                    told = printable(f"{file.parent} was taken over: this process ends")
                    os.write(2, f"{told}\n".encode())
                    os._exit(1)
                update(heartbeat=mine["heartbeat"])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _boot() -> str:
    """The id of the system's start; empty where the system tells none."""
    return _read(Path("/proc/sys/kernel/random/boot_id")).strip()


def _started(pid: int) -> str:
    """The clock tick at which a process was started: its number may be given again."""
    # the name in parentheses may hold anything
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
