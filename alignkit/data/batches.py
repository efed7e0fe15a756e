"""Read a line of a provider's batch result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignkit.endpoint.costs import Usage
from alignkit.endpoint.faults import Refused, refusal
from alignkit.endpoint.openai import OpenAIClient
from alignkit.sampling import REFUSED, Completion


def read_result(
    client: OpenAIClient, row: Mapping[str, Any], stop: Sequence[str]
) -> tuple[str, Completion | None, Usage | None]:
    """What the line says: `taken`, `refused` (for good) or `failed`; its answer or the
    words of the refusal; the tokens that were paid for.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: a line of another shape.
    """
    # OpenAI wraps the answer with its status; others give the bare answer.
    wrapped = row.get("response") or {}
    body = wrapped.get("body", wrapped)
    status = wrapped.get("status_code", 200)
    error = row.get("error")
    if body and status == 200 and not error:
        try:
            return ("taken", *client.read_one(body, stop))
        except Refused as refused:
            return "refused", Completion(str(refused), REFUSED, 0), (0, 0)
    said = json.dumps({"error": error} if error else body).encode()
    status = 400 if status == 200 else status
    fault = refusal(client.endpoint, "the batch", status, {}, said)
    if fault.refused:
        return "refused", Completion(fault.refused, REFUSED, 0), (0, 0)
    return "failed", None, None
