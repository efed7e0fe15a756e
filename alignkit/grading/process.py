"""One worker process as the pool sees it: what it is sent, what it answers, what it has
in hand.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from alignkit.grading.bound import Graded
from alignkit.grading.worker import HEADER, PROGRAM, frame

START_SECONDS = 120.0


@dataclass(slots=True)
class Task:
    """One sample to grade: a pickled function, its arguments, and where the result
    goes.
    """

    function: bytes
    arguments: tuple[object, ...]
    deadline: float
    future: Future[Graded] = field(default_factory=Future)
    deaths: int = 0


class Worker:
    """A process that grades, started at once; `due` is when it has waited too long."""

    def __init__(self, memory: int) -> None:
        self.socket, theirs = socket.socketpair()
        settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with theirs:
            fd = theirs.fileno()
            arguments = [str(fd), json.dumps(sys.path), str(memory)]
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                # a print in a reward must not mix into the output of a command
                stdout=2,
                pass_fds=[fd],
                # Ctrl-C is for the parent, which then ends the workers
                start_new_session=True,
                env={**os.environ, **settings},
            )
        self.buffer = bytearray()
        self.tasks: deque[Task] = deque()
        self.loaded: set[bytes] = set()
        self.loading: bytes | None = None
        self.ready = False
        self.due = time.monotonic() + START_SECONDS

    @property
    def idle(self) -> bool:
        return self.ready and not self.tasks and self.loading is None

    def send(self, message: tuple[object, ...]) -> None:
        """Only ever to a worker that is reading; a stopped one is given up."""
        self.socket.settimeout(10)
        self.socket.sendall(frame(message))
        self.socket.settimeout(0)

    def receive(self) -> Sequence[tuple[str, Any]] | None:
        """The messages that have come; None when the worker is gone."""
        self.socket.settimeout(0)
        gone = False
        try:
            while part := self.socket.recv(1 << 20):
                self.buffer += part
            gone = True
        except BlockingIOError:
            pass
        except ConnectionError:
            gone = True
        messages, at = [], 0
        while len(self.buffer) >= at + HEADER.size:
            end = at + HEADER.size + HEADER.unpack_from(self.buffer, at)[0]
            if len(self.buffer) < end:
                break
            messages.append(pickle.loads(bytes(self.buffer[at + HEADER.size : end])))
            at = end
        del self.buffer[:at]
        if gone and not messages:
            return None
        return messages

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()
