"""An endpoint's address, key and patience, as every request needs them."""

from __future__ import annotations

import os
from typing import Any

from alignkit.endpoint import permits
from alignkit.endpoint.adapting import Adaptation
from alignkit.errors import InputError, MissingError


class Connection:
    """Where requests go, with which key, how many at once and how patiently.

    Args:
        base_url: up to and with `/v1`. A password in it is refused: it would end up
            in logs and results; of queries Azure's `?api-version=` is taken.
        key_variable: the environment variable with the key; None sends no key. A
            server on this machine needs none, and gets one only where that is
            allowed.
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
        self.base_url, self.host, self.query = permits.checked_url(base_url)
        self.key_variable = permits.key_for(self.base_url, key_variable)
        permits.demand(self.base_url, self.key_variable)
        self.adaptation = Adaptation()
        minute = 1.0 if requests_per_minute is None else requests_per_minute
        if min(concurrency, attempts) < 1 or timeout <= 0 or minute <= 0:
            raise InputError(
                "concurrency and attempts are at least 1; timeout and requests per"
                " minute are positive"
            )
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
        if not key and self.local:
            return None
        if not key:
            # Somebody may have given the key itself: what looks unlike a variable is
            # not repeated.
            line = "export NAME, and give that name (the one given is not set)"
            if self.key_variable.isupper() and self.key_variable.isidentifier():
                line = f"export {self.key_variable}=…"
            raise MissingError(f"{self.host} needs a key: {line}")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise MissingError(
                f"the key in {self.key_variable} holds characters that no key has: set"
                " it again"
            )
        return key

    def client_options(self) -> dict[str, Any]:
        """Settings of the HTTP client. The key stands here and nowhere else."""
        import httpx

        key = self.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if key and self.query:
            headers["api-key"] = key  # of Azure
        return {
            "headers": headers,
            "limits": httpx.Limits(
                max_connections=self.concurrency,
                max_keepalive_connections=self.concurrency,
            ),
            "timeout": httpx.Timeout(self.timeout, connect=min(20.0, self.timeout)),
            # a company's proxy must not be asked for this machine's own servers
            "trust_env": not self.local,
        }

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        return permits.is_local(self.base_url)

    def shown(self, text: str) -> str:
        """A server's words for an error message, without the key."""
        key = os.environ.get(self.key_variable or "", "").strip()
        return shown(text.replace(key, "***") if key else text)


def shown(text: str) -> str:
    """A server's words, short and without control characters: a terminal would obey
    those.
    """
    text = "".join(c if c.isprintable() else " " for c in text[:2000])
    return text[:300] + ("…" if len(text) > 300 else "")
