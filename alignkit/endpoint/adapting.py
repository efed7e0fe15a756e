"""Parameters that a server refuses: renamed or left out from then on, with a notice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REFUSED = re.compile(
    r"unsupported|not support|does not (?:accept|allow)|unrecognized|unknown|not allowed"
    r"|not permitted|only the default|cannot both|extra (?:fields|inputs)|invalid.{0,20}param",
    re.IGNORECASE,
)
_SYSTEM = re.compile(
    r"system (?:role|message|instruction|prompt)s? (?:is |are )?(?:not|un)|developer instruction"
    r"|only user and assistant roles|roles must alternate",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Adaptation:
    """What is changed in every request to one server; `notices` say so."""

    renamed: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    system_as_user: bool = False
    notices: list[str] = field(default_factory=list)

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request as the server takes it."""
        adapted = {
            self.renamed.get(name, name): value
            for name, value in body.items()
            if name not in self.dropped
        }
        if self.system_as_user and "messages" in adapted:
            adapted["messages"] = _merged(adapted["messages"])
        return adapted

    def learn(self, body: Mapping[str, Any], said: str) -> bool:
        """Whether a refusal (its words) was of a parameter that was sent; from now on it
        is sent in another way.
        """
        messages = body.get("messages") or ()
        system = any(message.get("role") == "system" for message in messages)
        if system and not self.system_as_user and _SYSTEM.search(said):
            self.system_as_user = True
            self._say("the system message is sent as part of the user's")
            return True
        if not _REFUSED.search(said):
            return False
        # the message and the model are asked for; all else is how
        sent = [name for name in body if name not in ("model", "messages", "prompt")]
        named = [name for name in sent if re.search(rf"\b{re.escape(name)}\b", said)]
        if "max_completion_tokens" in said and "max_tokens" in sent:
            if "max_tokens" in self.renamed:
                return False
            self.renamed["max_tokens"] = "max_completion_tokens"
            self._say("max_tokens is sent as max_completion_tokens")
            return True
        # of two that exclude each other the later one goes
        dropped = [name for name in named if name not in (*self.renamed, "max_tokens")]
        if not dropped:
            return False
        self.dropped.add(dropped[-1])
        value = body[dropped[-1]]
        self._say(f"{dropped[-1]} ({value}) is left out: the server takes its own")
        return True

    def _say(self, notice: str) -> None:
        self.notices.append(notice)


def _merged(messages: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """System messages in front of the first user message."""
    system = [str(m["content"]) for m in messages if m["role"] == "system"]
    others = [dict(m) for m in messages if m["role"] != "system"]
    if not others:
        return [{"role": "user", "content": "\n\n".join(system)}]
    others[0]["content"] = "\n\n".join([*system, str(others[0]["content"])])
    return others
