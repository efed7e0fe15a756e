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
    if OPENED in response or _opens(prompt):
        return None
    return response


def _opens(prompt: object) -> bool:
    """Whether it ends within a thought."""
    text = prompt
    if isinstance(prompt, list | tuple) and prompt:
        text = prompt[-1].get("content")
    return isinstance(text, str) and text.rstrip().endswith(OPENED)
