"""JSON requests to an endpoint: pooled, bounded, patient with faults that pass, quick
to stop at those that do not.

Requests run on an event loop in a helper thread, so that the caller may be a trainer, a
plain script or itself inside a running loop; answers are handed over in the caller's
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from alignkit import json_text
from alignkit.endpoint.calls import Call, Refusal
from alignkit.endpoint.connection import Connection
from alignkit.endpoint.costs import Budget
from alignkit.endpoint.exchange import exchange
from alignkit.endpoint.faults import Fault
from alignkit.errors import AlignError, WorkError
from alignkit.json_text import BadJson

# of what is no answer of a model, such as a list of models
FETCH_LIMIT = 8 * 2**20  # bytes
FETCH_WITHIN = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """`left`: index -> why it has no answer. `stopped`: what ended the whole call
    early. `refused`: index -> the words in which the server refused it for good.
    """

    left: dict[int, str]
    stopped: AlignError | None = None
    refused: dict[int, str] = field(default_factory=dict)

    def demand_all(self, asked: int, resume: str) -> None:
        """Raise unless everything was answered; the error counts what is left and says
        how to go on.

        Raises:
            MissingError: key refused. InputError: wrong model or URL. WorkError: the
                endpoint failed.
        """
        if not self.left and not self.refused:
            return
        index, why = next(iter((self.left or self.refused).items()))
        cause = self.stopped or WorkError(f"request {index}: {why}")
        refused = len(self.refused)
        of_these = f" {refused} of them were refused for good." if refused else ""
        raise type(cause)(
            f"{cause}\n{len(self.left) + refused} of {asked} requests are left without"
            f" an answer.{of_these} {resume}"
        )


T = TypeVar("T")  # what a reader makes of an answer


class HttpOptions(TypedDict, total=False):
    """Options of the connection; `Endpoint` says what they mean and has the defaults."""

    concurrency: int
    timeout: float
    attempts: int
    requests_per_minute: float | None
    backoff: float


class Endpoint(Connection):
    """A connection that posts JSON and reads the JSON of its answers."""

    def post(
        self,
        path: str,
        bodies: Sequence[Mapping[str, object]],
        read: Callable[[Any], T],
        on_done: Callable[[int, T], None],
        budget: Budget | None = None,
        on_refused: Callable[[int, str], None] = lambda index, words: None,
    ) -> Outcome:
        """Post every body; `on_done(index, read(answer))` is called in this thread as
        answers come, and `on_refused(index, words)` for what is refused for good.

        `read` gets the parsed JSON and raises BadAnswer, KeyError, IndexError or
        TypeError on a wrong shape. Faults never raise here: they are in the outcome. A
        missing key does.
        """
        call = Call(self, path, bodies, read, budget)
        done: set[int] = set()
        with contextlib.closing(call.answers()) as answers:
            for index, value in answers:
                if isinstance(value, Refusal):
                    on_refused(index, value.words)
                    continue
                done.add(index)
                on_done(index, value)
        default = str(call.error or "not asked").splitlines()[0]
        left = {
            i: call.faults.get(i, default)
            for i in range(len(bodies))
            if i not in done and i not in call.refused
        }
        return Outcome(left, call.error, call.refused)

    def get(self, path: str) -> Any | None:
        """The JSON at a path, or None when the server does not offer it."""
        found = self.fetch("GET", path)
        if found is None or found[0] != 200:
            return None
        try:
            return json_text.load(found[1])
        except BadJson:
            return None

    def fetch(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        within: float = FETCH_WITHIN,
    ) -> tuple[int, bytes] | None:
        """(status, content) of one attempt, or None without an answer within `within`
        seconds and a few MiB.
        """
        # in a thread, as the caller may be inside a running loop
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(
                asyncio.run, self._fetch(method, path, body, within)
            ).result()

    async def _fetch(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        within: float,
    ) -> tuple[int, bytes] | None:
        import httpx

        within = min(within, self.timeout)
        url = self.base_url + path
        async with httpx.AsyncClient(**self.client_options()) as client:
            try:
                status, _, content = await exchange(
                    self, client, method, url, body, within=within, limit=FETCH_LIMIT
                )
            except Fault:
                return None
        return status, content
