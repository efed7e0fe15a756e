"""What an endpoint's refusals mean: which pass, which concern one request, which end
the work.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from alignkit import json_text
from alignkit.endpoint.connection import Connection
from alignkit.errors import AlignError, InputError, MissingError, WorkError
from alignkit.json_text import BadJson

MAX_WAIT = 600.0  # seconds; a Retry-After beyond it ends the work instead of sleeping


class BadAnswer(ValueError):
    """Raised by a reader of answers: one of the wrong shape. The request is tried
    again; `final`, once at most: a well-formed answer of the wrong type.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Refused(BadAnswer):
    """A well-formed answer by which the server refuses this one request."""

    def __init__(self, text: str) -> None:
        super().__init__(text, final=True)


class Fault(Exception):
    """One attempt failed.

    `passing`: worth another attempt. `billed`: the server may have charged for it.
        `limited`: the server asked to slow down, for `wait` seconds where it says so.
        `overload`: it has too much to do. `odd`: a well-formed answer of the wrong
        type, worth one more attempt at most. `fatal`: it concerns every request, so the
        work ends. `refused`: this request alone, for good, in the server's words.
    """

    def __init__(
        self, text: str, *, passing: bool = True, billed: bool = False
    ) -> None:
        super().__init__(text)
        self.passing = passing
        self.billed = billed
        self.limited = False
        self.overload = False
        self.odd = False
        self.refused = ""
        self.wait: float | None = None
        self.fatal: AlignError | None = None


def refusal(
    connection: Connection,
    url: str,
    status: int,
    headers: Mapping[str, str],
    raw: bytes,
) -> Fault:
    """What a status other than 2xx means."""
    said, codes = _said(raw)
    said = connection.shown(said)
    fault = Fault(f"{connection.host} answered {status}: {said}")
    fault.passing = status in (408, 409, 425, 429) or status >= 500
    if status in (401, 403) or (status == 400 and _of_the_key(said, codes)):
        variable = connection.key_variable
        do = (
            f"put a valid key into {variable}"
            if variable
            else "name the variable that holds the key"
        )
        fault.fatal = MissingError(
            f"{connection.host} refused the key ({status}): {do}. It said: {said}"
        )
    elif status == 402 or "insufficient_quota" in codes:
        fault.fatal = WorkError(
            f"the account at {connection.host} has no credit left ({status}). It said:"
            f" {said}"
        )
    elif status in (404, 405, 410) or 300 <= status < 400:
        gone = "is retired" if status == 410 else "or this path does not exist there"
        fault.fatal = InputError(
            f"{connection.host} answered {status} for {url}: model"
            f" '{connection.model}' {gone}. It said: {said}"
        )
    elif status in (429, 503):
        fault.limited = status == 429
        fault.overload = True
        fault.wait = retry_after(headers.get("retry-after"), time.time())
        milliseconds = headers.get("retry-after-ms", "")
        if milliseconds.isdecimal():
            fault.wait = int(milliseconds) / 1000
        if fault.wait is not None and fault.wait > MAX_WAIT:
            fault.fatal = WorkError(
                f"{connection.host} asks to wait {fault.wait:.0f} s ({status}): try"
                f" again later. It said: {said}"
            )
    elif status in (400, 413, 422) and _of_one_request(said, codes):
        fault.refused = said
    fault.passing = fault.passing and fault.fatal is None
    return fault


_KEY = re.compile(
    r"api key (?:is )?(?:not valid|invalid)|(?:invalid|incorrect) api key", re.I
)
_ONE = re.compile(
    r"content.?(?:filter|management|policy)|filtered|safety system|moderation|flagged"
    r"|context.?(?:length|window)|maximum context|too (?:long|many tokens|large)"
    r"|reduce the length|prompt is too|invalid (?:role|message)|roles? (?:must|should)",
    re.IGNORECASE,
)
_ONE_CODES = frozenset(
    [
        "content_filter",
        "context_length_exceeded",
        "content_policy_violation",
        "string_above_max_length",
    ]
)


def _of_the_key(said: str, codes: frozenset[str]) -> bool:
    return "invalid_api_key" in codes or _KEY.search(said) is not None


def _of_one_request(said: str, codes: frozenset[str]) -> bool:
    """Whether the words speak of what this request says, and of no other."""
    return bool(codes & _ONE_CODES) or _ONE.search(said) is not None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from a Retry-After header: a number of seconds or a date; None
    when absent or unreadable.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _said(raw: bytes) -> tuple[str, frozenset[str]]:
    """(message, code and type) of an error answer: OpenAI's `{"error": {…}}`, a list of
    these, `{"detail": …}`, or plain text.
    """
    text = raw[:20000].decode("utf-8", "replace")
    try:
        answer = json_text.load(text)
    except BadJson:
        return text, frozenset()
    if isinstance(answer, list) and answer:
        answer = answer[0]
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        message = str(error.get("message") or error.get("detail") or error)
        return message, frozenset(str(error.get(name)) for name in ("code", "type"))
    return str(error), frozenset()
