"""JSON requests to an endpoint: pooled, bounded, patient with faults that pass, quick
to stop at those that do not.

Requests run on an event loop in a helper thread, so that the caller may be a trainer, a
plain script or itself inside a running loop; answers are handed over in the caller's
thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar
from urllib.parse import urlsplit

from alignkit.endpoint.calls import Call
from alignkit.endpoint.costs import Budget
from alignkit.endpoint.faults import shown
from alignkit.errors import AlignError, InputError, MissingError, WorkError


@dataclass(frozen=True, slots=True)
class Outcome:
    """`left`: index -> why it has no answer. `stopped`: what ended the whole call
    early.
    """

    left: dict[int, str]
    stopped: AlignError | None = None

    def demand_all(self, asked: int, resume: str) -> None:
        """Raise unless everything was answered; the error counts what is left and says
        how to go on.

        Raises:
            MissingError: key refused. InputError: wrong model or URL. WorkError: the
                endpoint failed.
        """
        if not self.left:
            return
        index, why = next(iter(self.left.items()))
        message = f"{self.stopped}" if self.stopped else f"request {index}: {why}"
        message += (
            f"\n{len(self.left)} of {asked} requests are left without an answer."
            f" {resume}"
        )
        raise type(self.stopped or WorkError())(message)


T = TypeVar("T")  # what a reader makes of an answer


class HttpOptions(TypedDict, total=False):
    """Options of the connection; `Endpoint` says what they mean and has the defaults."""

    concurrency: int
    timeout: float
    attempts: int
    requests_per_minute: float | None
    backoff: float


class Endpoint:
    """An endpoint that takes JSON and answers JSON.

    Args:
        base_url: up to and with `/v1`. A password or query in it is refused: it would
            end up in logs and results.
        key_variable: the environment variable with the key; None sends no key.
        model: named in errors.
        concurrency: requests under way at once.
        timeout: seconds for one attempt, connecting and reading included.
        attempts: per request. A 429 does not count as one while other requests are
            being answered.
        requests_per_minute: a limit to keep from the start; without one, the server's
            429 are obeyed.
        backoff: seconds; attempt k waits uniformly in [0, backoff * 2**k] (full
            jitter), at most 30; faults other than 429 and 503 wait as after the first
            attempt while other requests are being answered.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_variable: str | None = None,
        model: str = "",
        concurrency: int = 16,
        timeout: float = 120.0,
        attempts: int = 8,
        requests_per_minute: float | None = None,
        backoff: float = 0.5,
    ) -> None:
        self.base_url, self.host = checked_url(base_url)
        minute = 1.0 if requests_per_minute is None else requests_per_minute
        if min(concurrency, attempts) < 1 or timeout <= 0 or minute <= 0:
            raise InputError(
                "concurrency and attempts are at least 1; timeout and requests per"
                " minute are positive"
            )
        self.key_variable = key_variable
        self.model = model
        self.concurrency = concurrency
        self.timeout = timeout
        self.attempts = attempts
        self.requests_per_minute = requests_per_minute
        self.backoff = backoff

    def key(self) -> str | None:
        """The key from the environment.

        Raises:
            MissingError: when the variable is not set, or holds what cannot be sent.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            # Somebody may have given the key itself: what looks unlike a variable is
            # not repeated.
            known = self.key_variable.isupper() and self.key_variable.isidentifier()
            name = (
                self.key_variable
                if known
                else "NAME, and give that name (the one given is not set)"
            )
            raise MissingError(
                f"{self.host} needs a key: export {name}{'=…' if known else ''}"
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise MissingError(
                f"the key in {self.key_variable} holds characters that no key has: set"
                " it again"
            )
        return key

    def post(
        self,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        read: Callable[[Any], T],
        on_done: Callable[[int, T], None],
        budget: Budget | None = None,
    ) -> Outcome:
        """Post every body; `on_done(index, read(answer))` is called in this thread as
        answers come.

        `read` gets the parsed JSON and raises BadAnswer, KeyError, IndexError or
        TypeError on a wrong shape. Faults never raise here: they are in the outcome. A
        missing key does.
        """
        call = Call(self, path, bodies, read, budget)
        done: set[int] = set()
        with contextlib.closing(call.answers()) as answers:
            for index, value in answers:
                done.add(index)
                on_done(index, value)
        default = str(call.error).splitlines()[0] if call.error else "not asked"
        left = {
            i: call.faults.get(i, default) for i in range(len(bodies)) if i not in done
        }
        return Outcome(left, call.error)

    def get(self, path: str) -> Any | None:
        """The JSON at a path, or None when the server does not offer it."""
        import httpx

        try:
            with httpx.Client(**self.client_options()) as client:
                response = client.get(self.base_url + path)
                return response.json() if response.status_code == 200 else None
        except (httpx.RequestError, ValueError, RecursionError):
            return None

    def client_options(self) -> dict[str, Any]:
        """Settings of the HTTP client. The key stands here and nowhere else."""
        import httpx

        key = self.key()
        local = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        return {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "limits": httpx.Limits(
                max_connections=self.concurrency,
                max_keepalive_connections=self.concurrency,
            ),
            "timeout": httpx.Timeout(self.timeout, connect=min(20.0, self.timeout)),
            # a company's proxy must not be asked for this machine's own servers
            "trust_env": not local,
        }

    def shown(self, text: str) -> str:
        """A server's words for an error message, without the key."""
        key = os.environ.get(self.key_variable or "", "").strip()
        return shown(text.replace(key, "***") if key else text)


def checked_url(base_url: str) -> tuple[str, str]:
    """(URL without a trailing slash, host with port).

    Raises:
        InputError: when it is no http(s) URL, or carries a user name, password, query
            or fragment.
    """
    try:
        parts = urlsplit(base_url.strip())
        host = parts.netloc.rpartition("@")[2]
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port or 1) > 0
        )
    except ValueError:
        good = False
    if not good:
        raise InputError(
            "the base URL is no http(s) URL; expected e.g. http://localhost:8000/v1"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"the base URL of {host} carries a password or query: put the key into an"
            " environment variable"
        )
    return base_url.strip().rstrip("/"), host
