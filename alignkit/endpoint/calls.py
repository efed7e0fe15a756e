"""A batch of requests in flight: the event loop in a helper thread, retries, rate
limits, the circuit breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alignkit.endpoint.costs import Budget, Usage, usage_of
from alignkit.endpoint.faults import BadAnswer, Fault, refusal
from alignkit.errors import AlignError, InputError, WorkError

if TYPE_CHECKING:
    import httpx

    from alignkit.endpoint.http import Endpoint

# of one answer: an endpoint is not trusted with this machine's memory
MAX_BYTES = 64 * 2**20
LONGEST_BACKOFF = 30.0  # seconds
# requests given up in a row, with no answer between them, mean that the endpoint is
# gone
BREAKER = 5


T = TypeVar("T")


class Call(Generic[T]):
    """One batch of requests in flight."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        read: Callable[[Any], T],
        budget: Budget | None,
    ) -> None:
        self.endpoint = endpoint
        self.url = endpoint.base_url + path
        self.options = endpoint.client_options()
        self.read = read
        self.budget = budget or Budget(None, None)
        self.size = len(bodies)
        self.todo = iter(enumerate(bodies))
        self.box: queue.SimpleQueue[tuple[int, T] | BaseException | None] = (
            queue.SimpleQueue()
        )
        self.faults: dict[int, str] = {}
        self.error: AlignError | None = None
        self.answered = 0
        self.given_up = 0
        # when the next request may start (rate limit, Retry-After)
        self.next_slot = 0.0

    def answers(self) -> Generator[tuple[int, T]]:
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
                yield item
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
            for _ in range(min(self.endpoint.concurrency, self.size)):
                group.create_task(self.work(client))

    async def work(self, client: httpx.AsyncClient) -> None:
        for index, body in self.todo:
            if not await self.affordable(body):
                return
            try:
                value, usage = await self.ask(client, body)
            except Fault as fault:
                self.budget.settle(body, None, answered=False)
                self.faults[index] = str(fault)
                self.given_up += 1
                if self.given_up >= BREAKER and not self.error:
                    kind = WorkError if fault.passing else InputError
                    self.stop(
                        kind(
                            f"{self.endpoint.host} failed {BREAKER} requests in a row;"
                            f" the last: {fault}"
                        )
                    )
            else:
                self.budget.settle(body, usage)
                self.given_up = 0
                self.answered += 1
                self.box.put((index, value))
            self.settled.set()

    async def affordable(self, body: Mapping[str, Any]) -> bool:
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
        self, client: httpx.AsyncClient, body: Mapping[str, Any]
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
                if attempt >= self.endpoint.attempts:
                    raise Fault(f"{fault} (after {attempt} attempts)") from fault
                # A fault that speaks of no overload is let grow the wait only while
                # nothing at all is answered.
                growth = attempt if fault.overload or self.answered == answered else 1
                jitter = random.uniform(
                    0, min(LONGEST_BACKOFF, self.endpoint.backoff * 2**growth)
                )
                delay = jitter if fault.wait is None else fault.wait + min(jitter, 1.0)
                # the limit holds for all requests, not for this one alone
                if fault.limited:
                    self.next_slot = max(self.next_slot, time.monotonic() + delay)
                await self.pause(delay)

    async def turn(self) -> None:
        start = max(time.monotonic(), self.next_slot)
        if self.endpoint.requests_per_minute is not None:
            self.next_slot = start + 60.0 / self.endpoint.requests_per_minute
        await self.pause(start - time.monotonic())

    async def pause(self, seconds: float) -> None:
        if seconds > 0 and not self.halt.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.halt.wait(), seconds)

    async def once(
        self, client: httpx.AsyncClient, body: Mapping[str, Any]
    ) -> tuple[T, Usage | None]:
        import httpx

        try:
            async with (
                # httpx's own limits never end a server that drips bytes
                asyncio.timeout(self.endpoint.timeout),
                client.stream("POST", self.url, json=body) as response,
            ):
                raw = bytearray()
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > MAX_BYTES:
                        raise Fault(
                            "the answer is larger than 64 MiB",
                            passing=False,
                            billed=True,
                        )
        except TimeoutError:
            raise Fault(
                f"no answer within {self.endpoint.timeout:g} s", billed=True
            ) from None
        except httpx.RequestError as error:
            kind = type(error).__name__
            text = self.endpoint.shown(f"{kind}: {error}" if str(error) else kind)
            raise Fault(
                text, billed=not isinstance(error, httpx.ConnectError)
            ) from None
        if response.status_code // 100 != 2:
            fault = refusal(
                self.endpoint,
                self.url,
                response.status_code,
                response.headers,
                bytes(raw),
            )
            if fault.fatal and not self.error:
                self.stop(fault.fatal)
            raise fault
        try:
            answer = json.loads(raw)
            return self.read(answer), usage_of(answer.get("usage"))
        except (
            LookupError,
            TypeError,
            AttributeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            why = (
                str(error)
                if isinstance(error, BadAnswer)
                else "it is no JSON of the expected shape"
            )
            raise Fault(
                f"unreadable answer: {self.endpoint.shown(why)}", billed=True
            ) from None
