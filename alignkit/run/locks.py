"""One writer at a time: an advisory lock that the operating system takes back when its
holder dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import platform
import sys
import time
from io import FileIO
from pathlib import Path
from types import TracebackType

from alignkit import json_text
from alignkit.errors import InputError
from alignkit.run.files import now, writing

log = logging.getLogger(__name__)

SIGNING = 25  # looks at an unsigned lock, 0.02 seconds apart

# What flock answers where a file system keeps no locks.
_NONE_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def lock(path: Path, *, shared: bool = False, patience: float = 0.0) -> Lock:
    """Hold a folder, or a file that is written, until `release`, the end of `with`, or
    the death of this process.

    The lock is the file `.lock` inside a folder and `.<name>.lock` beside a file; it
    says who holds it. Whoever only reads takes no lock.

    Args:
        path: the folder is there already; the file need not be.
        shared: together with others that share it, such as the processes of one run.
        patience: seconds to wait for a holder that is about to go.

    Raises:
        InputError: another process holds it.
        MissingError: the lock's file cannot be written.
    """
    file = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    end = time.monotonic() + patience
    while (taken := _take(file, shared)) is None:
        if time.monotonic() >= end:
            raise InputError(
                f"{path} is still being worked on by {_holder(file)}; wait until it is"
                " done, stop it, or name another place"
            )
        time.sleep(0.05)
    return Lock(path, file, taken)


class Lock:
    """A lock that is held; see `lock`."""

    def __init__(self, path: Path, file: Path, handle: FileIO) -> None:
        self.path = path
        self._file = file
        self._handle = handle
        _held.add(self)

    @property
    def real(self) -> bool:
        """Whether the file system keeps it."""
        return not self._handle.closed

    def share(self) -> None:
        """Let processes in that ask for it `shared`; no other can hold it alone.

        Raises:
            InputError: another process took it in the moment between the two.
        """
        if not self._handle.closed and not _flock(self._handle, fcntl.LOCK_SH):
            self.forget()
            raise InputError(
                f"{self.path} is still being worked on by {_holder(self._file)}"
            )

    def release(self) -> None:
        """Give it back. Its file goes with the last who shares it."""
        if self._handle.closed:
            return
        if _flock(self._handle, fcntl.LOCK_EX) and _names(self._file, self._handle):
            with contextlib.suppress(OSError):
                self._file.unlink()
        self.forget()

    def forget(self) -> None:
        """Close this process's handle. In a forked child the parent's lock stays."""
        _held.discard(self)
        self._handle.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


_held: set[Lock] = set()


def _forget_all() -> None:
    """A forked child shares the open file, and with it the lock: it would keep that of
    a parent that has died. Children that are spawned never get the file.
    """
    for held in list(_held):
        held.forget()


os.register_at_fork(after_in_child=_forget_all)


def _take(file: Path, shared: bool) -> FileIO | None:
    """The lock's file, locked and signed; None when another process holds it; closed
    where the file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = file.open("a+b", buffering=0)
        try:
            free = _flock(handle, kind)
        except OSError as error:
            handle.close()
            if error.errno not in _NONE_HERE:
                raise
            file.unlink(missing_ok=True)
            _say_unlocked(file.parent, str(error.strerror))
            return handle
        if not free:
            handle.close()
            return None
        # Else its last holder has removed the file between our two calls.
        if _names(file, handle):
            with writing(file):
                if not shared:
                    handle.truncate(0)
                handle.write(_signature())
            return handle
        handle.close()


def _flock(handle: FileIO, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@functools.cache
def _say_unlocked(folder: Path, why: str) -> None:
    log.warning(
        "the file system of %s keeps no locks (%s): nothing but you prevents that two"
        " processes write there at once",
        folder,
        why,
    )


def _names(file: Path, handle: FileIO) -> bool:
    """Whether the path still leads to the file that is open."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _signature() -> bytes:
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": now(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]),
    }
    return json.dumps(holder).encode() + b"\n"


def _holder(file: Path) -> str:
    """Who signed last; the one that has just taken the lock gets a moment to sign."""
    for _ in range(SIGNING):
        try:
            *_, last = file.read_bytes().splitlines()
            holder = json_text.load(last)
            return (
                f"process {holder['pid']} on {holder['host']} (since"
                f" {holder['since']}: {holder['command']})"
            )
        except (OSError, ValueError, LookupError, TypeError):
            time.sleep(0.02)
    return "another process"


def alive(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    if not 0 < pid < 2**31:  # 0 and below mean groups
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
