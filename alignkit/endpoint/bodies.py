"""The body of a successful answer as one JSON answer: JSON with or without a byte-order
mark, a stream of events put together, an error that calls itself a success.
"""

from __future__ import annotations

from typing import Any

from alignkit import json_text
from alignkit.endpoint.faults import BadAnswer
from alignkit.json_text import BadJson

SHOWN = 200  # characters of a body that is no answer


def parsed(raw: bytes, content_type: str) -> Any:
    """The JSON of a body.

    Raises:
        BadAnswer: it is none; the first characters of it are in the message.
    """
    text = raw.decode("utf-8-sig", "replace").strip()
    if content_type.startswith("text/event-stream") or text.startswith("data:"):
        return _joined(text)
    try:
        return json_text.load(text)
    except BadJson:
        kind = content_type.partition(";")[0] or "no content type"
        raise BadAnswer(f"no JSON ({kind}): {text[:SHOWN]!r}", final=True) from None


def _joined(text: str) -> Any:
    """A chat answer from the pieces of a stream."""
    answer: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    end = None
    for line in text.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data in ("", "[DONE]"):
            continue
        try:
            event = json_text.load(data)
        except BadJson:
            raise BadAnswer(f"an event that is no JSON: {data[:SHOWN]!r}") from None
        if not isinstance(event, dict):
            raise BadAnswer(f"an event that is no object: {data[:SHOWN]!r}")
        answer |= {key: value for key, value in event.items() if value is not None}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            for name in ("content", "reasoning_content", "reasoning", "refusal"):
                if isinstance(delta.get(name), str):
                    message[name] = (message.get(name) or "") + delta[name]
            end = choice.get("finish_reason") or end
    if not answer:
        raise BadAnswer(f"a stream without events: {text[:SHOWN]!r}", final=True)
    if "error" in answer:
        return answer
    return {
        **answer,
        "choices": [{"index": 0, "message": message, "finish_reason": end}],
    }


def told_error(answer: Any) -> int | None:
    """The status of an error that came as a success (`{"error": …}`, or an object that
    calls itself one); None where it is an answer.
    """
    if not isinstance(answer, dict) or answer.get("choices"):
        return None
    error = answer.get("error")
    if error is None and answer.get("object") != "error":
        return None
    code = (error if isinstance(error, dict) else answer).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 400
