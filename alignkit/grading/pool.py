"""Worker processes that can be killed: deadlines, a memory limit, restarts,
back-pressure.

One thread talks to all workers over sockets. A worker gets a few samples at a time and
answers each on its own, so that the sample in hand is known when a deadline passes or a
worker dies.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable

from alignkit import kits
from alignkit.errors import WorkError
from alignkit.grading.bound import Graded, timed_out
from alignkit.grading.process import START_SECONDS, Task, Worker
from alignkit.types import Score

MAX_CHUNK = 16  # samples sent to a worker at once
MAX_CHUNK_BYTES = 1 << 20
MAX_WAITING = 20_000  # submitting waits while more samples than this are not yet sent
MAX_FAILED_STARTS = 3  # in a row
# in a row; somebody else ended these workers, perhaps the system for want of memory
MAX_KILLED_STARTS = 50
MAX_DEATHS = 3  # a sample in hand at this many deaths gets the status `error`


class Pool:
    """At most `workers` processes with `memory` bytes each, started when there is work.
    Safe to use from threads.
    """

    def __init__(self, workers: int, memory: int) -> None:
        self.size = workers
        self.memory = memory
        self._workers: list[Worker] = []
        self._waiting: deque[Task] = deque()
        self._change = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failed_starts = 0

    def submit(self, tasks: Iterable[Task]) -> None:
        """Queue samples; waits while too many are queued already.

        Raises:
            WorkError: the pool is closed.
        """
        with self._change:
            self._change.wait_for(
                lambda: len(self._waiting) < MAX_WAITING or self._closed
            )
            if self._closed:
                raise WorkError("the grader is closed")
            self._waiting.extend(tasks)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="grading", daemon=True
                )
                self._thread.start()
        self._wake()

    def close(self) -> None:
        """End the workers; samples that are not graded fail with a WorkError."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def processes(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in list(self._workers)]

    def _wake(self) -> None:
        # full: it will wake anyway; closed: there is nothing to wake
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._closed:
                for key, _ in self._selector.select(self._patience()):
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            self._wake_out.recv(4096)
                    else:
                        self._read(key.data)
                self._end_overdue()
                self._assign()
        finally:
            for worker in list(self._workers):
                self._drop(worker)  # its samples wait again
            with self._change:
                self._closed = True
                left, self._waiting = self._waiting, deque()
                self._change.notify_all()
            for task in left:
                task.future.set_exception(
                    WorkError("the grader was closed before this sample was graded")
                )
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()

    def _patience(self) -> float | None:
        due = [worker.due for worker in self._workers if not worker.idle]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _read(self, worker: Worker) -> None:
        messages = worker.receive()
        if messages is None:
            self._died(worker)
            return
        for kind, content in messages:
            if kind == "ready":
                worker.ready = True
            elif kind == "loaded":
                self._loaded(worker, content)
            else:
                task = worker.tasks.popleft()
                worker.due, self._failed_starts = time.monotonic() + task.deadline, 0
                if kind == "raised":
                    task.future.set_exception(content)
                else:
                    task.future.set_result(content)

    def _loaded(self, worker: Worker, problem: str | None) -> None:
        function, worker.loading = worker.loading, None
        assert function is not None
        if problem is None:
            worker.loaded.add(function)
            return
        text = (
            f"a grading worker cannot import the reward function ({problem}); put it"
            " into a file of a kit, or say where='process'"
        )
        with self._change:
            failed = [task for task in self._waiting if task.function == function]
            self._waiting = deque(
                task for task in self._waiting if task.function != function
            )
        for task in failed:
            task.future.set_exception(WorkError(text))

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.idle or worker.due > now:
                continue
            if worker.tasks and worker.loading is None:
                task = worker.tasks.popleft()
                self._drop(worker)
                task.future.set_result(Graded(timed_out(task.deadline), task.deadline))
            else:
                self._died(worker)

    def _died(self, worker: Worker) -> None:
        """A worker is gone that nobody killed for a deadline: out of memory, a crash,
        or a kill from outside.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(1.0)  # its socket is closed, so it is ending
        code = worker.process.poll() or 0
        if worker.tasks:
            self._blame(worker, code)
        elif not worker.ready or worker.loading is not None:
            self._failed_starts += 1
        self._drop(worker)
        limit = MAX_FAILED_STARTS if code >= 0 else MAX_KILLED_STARTS
        if self._failed_starts < limit:
            return
        self._closed = True
        with self._change:
            failed, self._waiting = self._waiting, deque()
        text = (
            f"grading workers do not start (exit status {code}); what they printed"
            " stands above"
        )
        for task in failed:
            task.future.set_exception(WorkError(text))

    def _blame(self, worker: Worker, code: int) -> None:
        """Settle the sample in hand of a dead worker, if it is what killed it."""
        task = worker.tasks[0]
        task.deaths += 1
        if code == -signal.SIGALRM:
            graded = Graded(timed_out(task.deadline), task.deadline)
        elif task.deaths >= MAX_DEATHS:
            why = (
                f"{task.deaths} grading workers died on this sample (exit status"
                f" {code})"
            )
            graded = Graded(Score(0.0, "error", stage="worker", explanation=why), 0.0)
        else:
            return
        worker.tasks.popleft().future.set_result(graded)

    def _drop(self, worker: Worker) -> None:
        self._selector.unregister(worker.socket)
        self._workers.remove(worker)
        worker.kill()
        with self._change:
            self._waiting.extendleft(reversed(worker.tasks))
        worker.tasks.clear()

    def _assign(self) -> None:
        with self._change:
            busy = sum(not worker.idle for worker in self._workers)
            size = min(self.size, len(self._waiting) + busy)
        while len(self._workers) < size:
            worker = Worker(self.memory)
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
            self._workers.append(worker)
        for worker in [worker for worker in self._workers if worker.idle]:
            if self._waiting:
                try:
                    self._feed(worker)
                except OSError:  # it died or stands still: what it had was not begun
                    self._drop(worker)
                    self._wake()

    def _feed(self, worker: Worker) -> None:
        first = self._waiting[0]
        if first.function not in worker.loaded:
            worker.loading = first.function
            worker.due = time.monotonic() + START_SECONDS
            reward = (first.function, first.deadline, kits.mounted())
            worker.send(("load", first.function, reward))
            return
        with self._change:
            share = max(1, min(MAX_CHUNK, len(self._waiting) // (2 * self.size)))
            size = 0
            while (
                self._waiting and len(worker.tasks) < share and size < MAX_CHUNK_BYTES
            ):
                if self._waiting[0].function != first.function:
                    break
                task = self._waiting.popleft()
                size += sum(len(a) for a in task.arguments if isinstance(a, str))
                worker.tasks.append(task)
            self._change.notify_all()
        worker.due = time.monotonic() + first.deadline
        worker.send(
            ("grade", first.function, [task.arguments for task in worker.tasks])
        )
