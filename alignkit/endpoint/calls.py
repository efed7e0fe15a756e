"""A batch of requests in flight: the event loop in a helper thread, retries, rate
limits, the circuit breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alignkit.endpoint.bodies import parsed, told_error
from alignkit.endpoint.connection import Connection
from alignkit.endpoint.costs import Budget, Usage, usage_of
from alignkit.endpoint.exchange import exchange
from alignkit.endpoint.faults import BadAnswer, Fault, Refused, refusal
from alignkit.errors import AlignError, InputError, WorkError

if TYPE_CHECKING:
    import httpx

MAX_SAID = 20_000  # of a refusal
LONGEST_BACKOFF = 30.0  # seconds
# requests given up in a row, with no answer between them, mean that the endpoint is
# gone
BREAKER = 5
# what a reader raises at an answer of another shape
UNREADABLE = (
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    ArithmeticError,
    RecursionError,
)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands in the place of an answer where the server refused it for good."""

    words: str


class Call(Generic[T]):
    """One batch of requests in flight."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        bodies: Sequence[Mapping[str, object]],
        read: Callable[[Any], T],
        budget: Budget | None,
    ) -> None:
        self.connection = connection
        self.url = connection.base_url + path
        self.options = connection.client_options()
        self.read = read
        self.budget = budget or Budget(None, None)
        self.size = len(bodies)
        self.todo = iter(enumerate(bodies))
        # an answer with its index, and the event that says the caller is done with it
        self.box: queue.SimpleQueue[
            tuple[int, T | Refusal, asyncio.Event] | BaseException | None
        ] = queue.SimpleQueue()
        self.faults: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        self.error: AlignError | None = None
        self.answered = 0
        self.given_up = 0
        # when the next request may start (rate limit, Retry-After)
        self.next_slot = 0.0

    def answers(self) -> Generator[tuple[int, T | Refusal]]:
        loop = asyncio.new_event_loop()
        task = loop.create_task(self.drive())
        thread = threading.Thread(
            target=self.in_thread, args=(loop, task), name="alignkit-http", daemon=True
        )
        thread.start()
        try:
            while (item := self.box.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                index, value, taken = item
                yield index, value
                loop.call_soon_threadsafe(taken.set)
        finally:  # also when the caller stops early (Ctrl-C, an error in on_done)
            with contextlib.suppress(RuntimeError):  # the loop is already closed
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    def in_thread(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]
    ) -> None:
        try:
            loop.run_until_complete(task)
        except BaseExceptionGroup as group:
            self.box.put(group.exceptions[0])
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self.box.put(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self.box.put(None)

    async def drive(self) -> None:
        import httpx

        self.halt = asyncio.Event()
        self.settled = asyncio.Event()
        async with (
            httpx.AsyncClient(**self.options) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(min(self.connection.concurrency, self.size)):
                group.create_task(self.work(client))

    async def work(self, client: httpx.AsyncClient) -> None:
        for index, body in self.todo:
            if not await self.affordable(body):
                return
            try:
                value, usage = await self.ask(client, body)
            except Fault as fault:
                self.budget.settle(body, None, answered=False)
                if fault.refused:
                    # it says nothing of the server
                    self.refused[index] = fault.refused
                    await self.hand_over(index, Refusal(fault.refused))
                    continue
                self.faults[index] = str(fault)
                self.given_up += 1
                if self.given_up >= BREAKER and not self.error:
                    kind = WorkError if fault.passing else InputError
                    text = f"{self.connection.host} failed {BREAKER} requests in a row"
                    self.stop(kind(f"{text}; the last: {fault}"))
            else:
                self.budget.settle(body, usage)
                self.given_up = 0
                self.answered += 1
                await self.hand_over(index, value)
            self.settled.set()

    async def hand_over(self, index: int, value: T | Refusal) -> None:
        """Nothing is asked before the answer is written: a process that dies loses no
        more than `concurrency` of them.
        """
        taken = asyncio.Event()
        self.box.put((index, value, taken))
        self.settled.set()
        await taken.wait()

    async def affordable(self, body: Mapping[str, object]) -> bool:
        while not self.error and not self.budget.reserve(body):
            if not self.budget.under_way:
                self.stop(
                    WorkError(f"stopped before exceeding the limit: {self.budget}")
                )
                break
            self.settled.clear()
            await self.settled.wait()
        return not self.error

    def stop(self, error: AlignError) -> None:
        """No further attempts; those under way are waited for, as they may be paid for."""
        self.error = error
        self.halt.set()
        self.settled.set()

    async def ask(
        self, client: httpx.AsyncClient, body: Mapping[str, object]
    ) -> tuple[T, Usage | None]:
        attempt = 0
        while True:
            await self.turn()
            if self.error:
                raise Fault(str(self.error))
            answered = self.answered
            try:
                return await self.once(client, body)
            except Fault as fault:
                if fault.billed:
                    self.budget.doubt(body)
                if not fault.passing:
                    raise
                if not (fault.limited and self.answered > answered):
                    attempt += 1
                allowed = self.connection.attempts
                if attempt >= (min(allowed, 2) if fault.odd else allowed):
                    raise Fault(f"{fault} (after {attempt} attempts)") from fault
                # A fault that speaks of no overload is let grow the wait only while
                # nothing at all is answered.
                growth = attempt if fault.overload or self.answered == answered else 1
                jitter = random.uniform(
                    0, min(LONGEST_BACKOFF, self.connection.backoff * 2**growth)
                )
                delay = jitter if fault.wait is None else fault.wait + min(jitter, 1.0)
                # the limit holds for all requests, not for this one alone
                if fault.limited:
                    self.next_slot = max(self.next_slot, time.monotonic() + delay)
                await self.pause(delay)

    async def turn(self) -> None:
        start = max(time.monotonic(), self.next_slot)
        if self.connection.requests_per_minute is not None:
            self.next_slot = start + 60.0 / self.connection.requests_per_minute
        await self.pause(start - time.monotonic())

    async def pause(self, seconds: float) -> None:
        if seconds > 0 and not self.halt.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.halt.wait(), seconds)

    async def once(
        self, client: httpx.AsyncClient, body: Mapping[str, object]
    ) -> tuple[T, Usage | None]:
        adaptation = self.connection.adaptation
        sent = adaptation.apply(body)
        status, headers, raw = await exchange(
            self.connection, client, "POST", self.url, sent
        )
        if status in (400, 422) and adaptation.apply(body) == sent:
            said = raw[:MAX_SAID].decode("utf-8", "replace")
            if adaptation.learn(sent, said):
                return await self.once(client, body)
        elif status in (400, 422):
            return await self.once(client, body)  # another request has learnt it
        if status // 100 != 2:
            raise self.refusal(status, headers, raw)
        try:
            answer = parsed(raw, headers.get("content-type", ""))
            if code := told_error(answer):
                raise self.refusal(code, headers, raw)
            return self.read(answer), usage_of(answer.get("usage"))
        except Refused as error:
            fault = Fault(str(error), passing=False, billed=True)
            fault.refused = self.connection.shown(str(error))
            raise fault from None
        except BadAnswer as error:
            why, final = str(error), error.final
        except UNREADABLE:
            start = raw[:200].decode("utf-8", "replace")
            why, final = f"it is no JSON of the expected shape: {start!r}", True
        text = f"unreadable answer ({status}): {self.connection.shown(why)}"
        fault = Fault(text, billed=True)
        fault.odd = final
        raise fault

    def refusal(self, status: int, headers: Mapping[str, str], raw: bytes) -> Fault:
        fault = refusal(self.connection, self.url, status, headers, raw)
        if fault.fatal and not self.error:
            self.stop(fault.fatal)
        return fault
