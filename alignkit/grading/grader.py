"""Score responses with rewards, wherever these run: in the worker pool, in this
process, or as coroutines.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import pickle
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from alignkit.errors import AlignError
from alignkit.grading.bound import (
    BoundReward,
    Graded,
    as_score,
    call_sample,
    crashed,
    timed_out,
)
from alignkit.grading.pool import Pool, Task

log = logging.getLogger(__name__)

MEMORY = 1 << 30  # bytes that grading one sample may take
CACHED = 100_000  # verdicts kept
PATIENCE = 60.0  # seconds between warnings about a reward that has no deadline
# unless asked for: each holds about 100 MB, and few samples need more than a
# millisecond
MAX_WORKERS = 16


class Grading:
    """Scores that are being computed. `result()` waits; what has to run in the caller's
    process runs then.
    """

    def __init__(self, collect: Callable[[], list[Graded]]) -> None:
        self._collect = collect
        self._graded: list[Graded] | None = None

    def result(self) -> list[Graded]:
        """One Graded per response, in order.

        Raises:
            AlignError: grading as such is impossible (a missing key, a closed grader);
                a crash of the reward on a sample is a Score with status `error`
                instead.
        """
        if self._graded is None:
            self._graded = self._collect()
        return self._graded


class Grader:
    """Owns the worker pool. Use it as a context manager, from any thread.

    Verdicts of pool rewards are cached by function, options and arguments; those with
    status `timeout` or `error` are not kept.
    """

    def __init__(self, workers: int | None = None, memory: int = MEMORY) -> None:
        self.pool = Pool(workers or default_workers(), memory)
        self._cache: OrderedDict[bytes, Graded] = OrderedDict()
        self._running: dict[bytes, Future[Graded]] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and the event loop; what is not graded fails."""
        self.pool.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def score(
        self,
        bound: BoundReward,
        responses: Sequence[str],
        truths: Sequence[object] | None = None,
        prompts: Sequence[object] | None = None,
        metadatas: Sequence[object] | None = None,
        tokens: Sequence[int | None] | None = None,
    ) -> list[Graded]:
        """Grade and wait; see `submit`."""
        columns = responses, truths, prompts, metadatas, tokens
        return self.submit(bound, *columns).result()

    def submit(
        self,
        bound: BoundReward,
        responses: Sequence[str],
        truths: Sequence[object] | None = None,
        prompts: Sequence[object] | None = None,
        metadatas: Sequence[object] | None = None,
        tokens: Sequence[int | None] | None = None,
    ) -> Grading:
        """Begin to grade a batch: pool and async rewards start at once, others when the
        result is asked for.

        Columns that the reward does not name may be left out; those it names and that
        are left out are all None.
        """
        named = {
            "response": responses,
            "truth": truths,
            "prompt": prompts,
            "metadata": metadatas,
            "tokens": tokens,
        }
        columns = [
            named[name if name in named else name.removesuffix("s")]
            or [None] * len(responses)
            for name in bound.arguments
        ]
        lengths = [len(column) for column in columns]
        if any(length != len(responses) for length in lengths):
            raise ValueError(f"{len(responses)} responses, but columns of {lengths}")
        rows = list(zip(*columns, strict=True))
        if bound.where == "pool":
            return self.call(bound.function, rows, bound.deadline)
        if not bound.is_async and bound.form == "sample":
            return Grading(lambda: _score_here(bound, rows))
        if bound.form == "sample":
            return Grading(self._start(_score_rows(bound, rows)).result)
        answer: Callable[[], Any] = functools.partial(bound.function, *columns)
        if bound.is_async:
            answer = self._start(_contained(answer())).result
        return Grading(lambda: _score_batch(bound, answer, len(rows)))

    def call(
        self,
        function: Callable[..., object],
        rows: Sequence[tuple[object, ...]],
        deadline: float,
    ) -> Grading:
        """Begin `function(*row)` for every row in the workers; identical rows are
        computed once.
        """
        pickled = pickle.dumps(function)
        futures: list[Future[Graded]] = []
        new: list[tuple[bytes, Task]] = []
        with self._lock:
            for row in rows:
                key = hashlib.blake2b(
                    pickled + pickle.dumps((row, deadline)), digest_size=16
                ).digest()
                if key in self._cache:
                    self._cache.move_to_end(key)
                    future: Future[Graded] = Future()
                    future.set_result(self._cache[key])
                elif key in self._running:
                    future = self._running[key]
                else:
                    task = Task(pickled, row, deadline)
                    future = self._running[key] = task.future
                    new.append((key, task))
                futures.append(future)
        for key, task in new:
            task.future.add_done_callback(functools.partial(self._keep, key))
        if new:
            self.pool.submit([task for _, task in new])
        return Grading(lambda: [future.result() for future in futures])

    def _keep(self, key: bytes, future: Future[Graded]) -> None:
        with self._lock:
            self._running.pop(key, None)
            if future.exception() is None and future.result().score.status not in (
                "timeout",
                "error",
            ):
                self._cache[key] = future.result()
                if len(self._cache) > CACHED:
                    self._cache.popitem(last=False)

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="async rewards", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def default_workers() -> int:
    """A worker for each processor that this process may use, shared among the training
    processes of this machine.
    """
    processors = os.cpu_count() or 1
    if sys.platform == "linux":
        processors = len(os.sched_getaffinity(0))
    share = processors // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, share))


@contextlib.contextmanager
def _watched(bound: BoundReward, size: int) -> Iterator[None]:
    """What runs in this process cannot be stopped from outside, but nobody shall wonder
    why the run stands still.
    """
    done = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        while not done.wait(PATIENCE):
            log.warning(
                "reward '%s' has been at %d responses for %.0f s; it runs in this"
                " process and has no deadline (Ctrl-C interrupts it)",
                *(bound.name, size, time.monotonic() - started),
            )

    threading.Thread(target=watch, name="watch over a reward", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _score_here(bound: BoundReward, rows: Sequence[tuple[object, ...]]) -> list[Graded]:
    with _watched(bound, len(rows)):
        return [call_sample(bound.function, row) for row in rows]


def _score_batch(
    bound: BoundReward, call: Callable[[], Iterable[object]], size: int
) -> list[Graded]:
    started = time.perf_counter()
    try:
        with _watched(bound, size):
            values = list(call())
        if len(values) != size:
            raise ValueError(
                f"reward '{bound.name}' returned {len(values)} values for {size}"
                " responses"
            )
        scores = [as_score(value) for value in values]
    except (AlignError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and its crash is the result here
        scores = [crashed(error)] * size
    seconds = (time.perf_counter() - started) / max(size, 1)
    return [Graded(score, seconds) for score in scores]


async def _score_rows(
    bound: BoundReward, rows: Sequence[tuple[object, ...]]
) -> list[Graded]:
    answers = await asyncio.gather(
        *(_score_row(bound, row) for row in rows), return_exceptions=True
    )
    for answer in answers:
        if isinstance(answer, AlignError):
            raise answer
    return [
        Graded(crashed(answer), 0.0) if isinstance(answer, BaseException) else answer
        for answer in answers
    ]


async def _contained(answer: Awaitable[Any]) -> Any:
    """An exit that a reward raises would end the loop that all of them share."""
    try:
        return await answer
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the reward raised {error!r}") from error


async def _score_row(bound: BoundReward, row: tuple[object, ...]) -> Graded:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(bound.deadline) as limit:
            score = as_score(await _contained(bound.function(*row)))
    except TimeoutError as error:
        score = timed_out(bound.deadline) if limit.expired() else crashed(error)
    return Graded(score, time.perf_counter() - started)
