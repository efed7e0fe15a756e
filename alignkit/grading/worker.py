"""A grading worker: a fresh Python process that grades what it is sent, and ends when
its parent does.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from alignkit import kits
from alignkit.errors import AlignError
from alignkit.grading.bound import call_sample
from alignkit.run import stacks

HEADER = struct.Struct("!Q")
# seconds after the deadline at which the kernel ends a worker that nobody killed
ALARM_MARGIN = 0.5
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from alignkit.grading.worker import main; main(int(sys.argv[1]), int(sys.argv[3]))"
)


def frame(message: object) -> bytes:
    """A message as bytes: its length, then its pickle."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def main(descriptor: int, memory: int) -> None:
    """Serve one socket: load functions, grade samples in order, answer each as soon as
    it is done.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stacks.answer()
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    connection = socket.socket(fileno=descriptor)
    functions: dict[bytes, tuple[Callable[..., Any], float]] = {}
    connection.sendall(frame(("ready", None)))
    while (message := _receive(connection)) is not None:
        kind, key, content = message
        if kind == "load":
            functions[key], problem = _load(*content)
            _limit_memory(memory)
            connection.sendall(frame(("loaded", problem)))
            continue
        function, deadline = functions[key]
        for arguments in content:
            # SIGALRM's default action ends the process
            signal.setitimer(signal.ITIMER_REAL, deadline + ALARM_MARGIN)
            try:
                answer: Any = ("graded", call_sample(function, arguments, apart=True))
            except AlignError as error:
                answer = ("raised", error)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.sendall(frame(answer))
        if (
            sys.platform == "linux"
            and _virtual_memory()
            > resource.getrlimit(resource.RLIMIT_AS)[0] - memory // 2
        ):
            # what is held (caches, fragments) would fail the next samples: a fresh
            # worker takes over
            return


def _end_with(parent: int) -> None:
    """End this process with its parent, inside a reward too; the end of the socket
    tells nothing of that, as a copy of it may live on in another child.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _receive(connection: socket.socket) -> Any:
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    (size,) = HEADER.unpack(header)
    return pickle.loads(_exactly(connection, size) or b"N.")


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    """So many bytes; None when the other side has closed."""
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _load(
    pickled: bytes, deadline: float, mounted: Sequence[kits.Kit]
) -> tuple[Any, str | None]:
    """The function with its deadline, or why it cannot be loaded; what it needs is
    imported before a sample waits.
    """
    for kit in mounted:
        kits.mount(kit)  # some may have been mounted since this process started
    try:
        function = pickle.loads(pickled)
    except (ImportError, AttributeError, AlignError) as error:
        return None, f"{type(error).__name__}: {error}"
    if "alignkit.grading.math_verify_stage" in sys.modules:
        from alignkit.grading.math_verify_stage import warm_up

        warm_up()
    return (function, deadline), None


def _limit_memory(budget: int) -> None:
    """Allow `budget` bytes of address space beyond what the loaded code takes."""
    if sys.platform != "linux":
        # elsewhere such limits are not kept, and the address space cannot be read
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = _virtual_memory() + budget
    resource.setrlimit(
        resource.RLIMIT_AS,
        (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard),
    )


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
