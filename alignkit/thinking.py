"""Thinking is not the answer."""

from __future__ import annotations

from typing import Literal

OPENED, CLOSED = "<think>", "</think>"
Reasoning = Literal["strip", "keep"]


def behind_thinking(response: str, prompt: object = "") -> str | None:
    """What a response says behind its last `</think>`; the whole of one that did not
    think; None where the thinking does not end.

    `prompt` (a text, or chat messages) may have opened the thinking.
    """
    _, closed, reply = response.rpartition(CLOSED)
    if closed:
        return reply
    if OPENED in response or opens_thinking(prompt):
        return None
    return response


def with_thought(thought: str, reply: str) -> str:
    """A reply behind what was thought before it; the reply alone where that is
    nothing.
    """
    if not thought:
        return reply
    return f"{OPENED}\n{thought}\n{CLOSED}\n\n{reply}"


def opens_thinking(prompt: object) -> bool:
    """Whether a prompt (a text, or chat messages) ends within a thought."""
    text = prompt
    if isinstance(prompt, list | tuple) and prompt:
        text = prompt[-1].get("content")
    return isinstance(text, str) and text.rstrip().endswith(OPENED)
