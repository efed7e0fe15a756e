"""SIGTERM, SIGINT and SIGHUP are one road: what works is asked to stop, first politely,
then at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

# Seconds in which signals are one: a scheduler and a parent may both send one.
SAME = 1.0
PATIENCE = 10.0  # seconds that cleaning up may take once all must stop at once
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop."""


@dataclass
class _State:
    asked: int = 0  # the signal
    since: float = 0.0
    grace: float | None = None  # seconds, where the work looks at `asked` by itself
    last: list[Callable[[], None]] = field(default_factory=list)


_state = _State()


def install() -> None:
    """Take the road in this process. A signal that was ignored at its start (nohup)
    stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    taken = any(signal.getsignal(number) is _asked for number in SIGNALS)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _asked)
    if taken:  # by an earlier command of this process
        return
    seen, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_bound, args=(seen, wake), daemon=True).start()


def ask() -> None:
    """Ask this process to stop, from any of its threads, as by SIGTERM."""
    if signal.getsignal(signal.SIGTERM) is _asked:
        os.kill(os.getpid(), signal.SIGTERM)


def asked() -> bool:
    """Whether this process is to stop."""
    return bool(_state.asked)


def exit_code() -> int:
    """143 for SIGTERM, else 130."""
    return 143 if _state.asked == signal.SIGTERM else 130


@contextlib.contextmanager
def deferred(grace: float) -> Iterator[None]:
    """Work that asks `asked` when it can stop, within `grace` seconds: only then is it
    broken off, by `Stopped`.
    """
    if _state.asked:
        raise Stopped
    _state.grace = grace
    try:
        yield
    finally:
        _state.grace = None
    if _state.asked:
        raise Stopped


@contextlib.contextmanager
def last_words(say: Callable[[], None]) -> Iterator[None]:
    """What is done when the process has to end without unwinding."""
    _state.last.append(say)
    try:
        yield
    finally:
        _state.last.remove(say)


def _asked(number: int, frame: FrameType | None) -> None:
    """In the main thread, between two steps of Python."""
    now = time.monotonic()
    if not _state.asked:
        _state.asked, _state.since = number, now
        if _state.grace is None:
            raise Stopped
    elif now - _state.since >= SAME:
        raise Stopped


def _bound(seen: socket.socket, _kept_open: socket.socket) -> None:
    """In a thread: see that it ends in time, also where the main thread is in a call
    that does not return.
    """
    while (number := seen.recv(1)[0]) not in SIGNALS:
        pass
    first, grace = time.monotonic(), _state.grace
    while True:
        left = None if grace is None else first + max(grace, SAME) - time.monotonic()
        ready, _, _ = select.select([seen], [], [], left and max(left, 0.0))
        if ready:
            again = seen.recv(1)[0] in SIGNALS
            if again and time.monotonic() - first >= SAME:
                break
        elif _state.grace is None:  # it has stopped in time
            grace = None
        else:
            os.kill(os.getpid(), number)  # as a second one
            break
    time.sleep(PATIENCE)
    for say in _state.last:
        say()
    os._exit(143 if number == signal.SIGTERM else 130)


def _default() -> None:
    """A forked child would wake its parent's thread."""
    if any(signal.getsignal(number) is _asked for number in SIGNALS):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _asked:
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_default)
