"""Rows of conversations as rows of prompt and response: `messages` (role, content), and
`conversations` as ShareGPT writes them (from, value).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.errors import InputError, listing
from alignkit.thinking import with_thought

COLUMNS = ("messages", "conversations")
_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
    **{name: name for name in ("system", "developer")},
}
_TOOL_ROLES = ("tool", "function", "ipython", "observation", "function_call")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_NO_TOOLS = (
    "rows are texts here; leave such rows out, or write what the tool is asked and"
    " answers into `content`"
)


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """The row with `prompt` (messages) and, where the conversation ends with an answer,
    `response` in the place of its conversation; a single question also as `question`.

    A row that has these, or no conversation, is left as it is. A thought that the
    answer holds apart is put in front of it as `<think>…</think>`.

    Raises:
        InputError: what cannot be read as text: a tool's call, an image, an unknown
            role. It names the message.
    """
    row = _preference(row)
    name = next((name for name in COLUMNS if isinstance(row.get(name), list)), None)
    asked = any(row.get(column) is not None for column in QUESTION_OR_PROMPT)
    answered = any(row.get(column) is not None for column in ("response", "chosen"))
    if name is None or (asked and answered):
        return row
    _refuse_tools(row)
    messages = read_messages(row[name])
    others = {key: value for key, value in row.items() if key != name}
    if messages and isinstance(row.get("system"), str) and row["system"].strip():
        if messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": row["system"]})
        del others["system"]
    ends = bool(messages) and messages[-1]["role"] == "assistant"
    if asked and not ends:
        return row
    prompt = messages[:-1] if ends else messages
    if not any(message["role"] == "user" for message in prompt):
        raise InputError(f"`{name}` holds no question of a user")
    found: dict[str, Any] = {**others, "prompt": prompt}
    if len(prompt) == 1:
        found.setdefault("question", prompt[0]["content"])
    if ends and not answered:
        found["response"] = with_thought(
            _thought(row[name][-1]), messages[-1]["content"]
        )
    return found


def read_messages(entries: Sequence[object]) -> list[dict[str, str]]:
    """The messages of a conversation, each with `role` and `content`, as texts.

    Raises:
        InputError: see `flattened`.
    """
    return [_message(entry, number) for number, entry in enumerate(entries, 1)]


def _preference(row: dict[str, Any]) -> dict[str, Any]:
    """The row with texts in the place of a `chosen` and a `rejected` that are lists of
    messages; what stands in both before the answer is the prompt.

    Raises:
        InputError: a side does not end with an answer, or their questions differ.
    """
    sides = {n: row[n] for n in ("chosen", "rejected") if isinstance(row.get(n), list)}
    if not sides:
        return row
    _refuse_tools(row)
    answers: dict[str, str] = {}
    asked: list[dict[str, str]] | None = None
    for name, entries in sides.items():
        try:
            messages = read_messages(entries)
        except InputError as error:
            raise InputError(f"`{name}`: {error}") from error
        if not messages or messages[-1]["role"] != "assistant":
            raise InputError(f"`{name}` does not end with an answer of the assistant")
        if asked is not None and asked != messages[:-1]:
            raise InputError("`chosen` and `rejected` answer other questions")
        asked = messages[:-1]
        answers[name] = with_thought(_thought(entries[-1]), messages[-1]["content"])
    # with the question alone the row's own column says all
    if not asked or (len(asked) == 1 and any(row.get(c) for c in QUESTION_OR_PROMPT)):
        return {**row, **answers}
    one = {"question": asked[0]["content"]} if len(asked) == 1 else {}
    return {**one, **row, **answers, "prompt": asked}


def _refuse_tools(row: Mapping[str, Any]) -> None:
    for column in ("tools", "functions"):
        if row.get(column) and row[column] not in ("[]", "null"):
            raise InputError(f"the conversation has `{column}`: {_NO_TOOLS}")


def _message(entry: object, number: int) -> dict[str, str]:
    if not isinstance(entry, Mapping):
        raise InputError(
            f"message {number} is a {type(entry).__name__}; expected an object with"
            " role and content (ShareGPT: from and value)"
        )
    role = entry.get("role") or entry.get("from")
    called = next((key for key in _TOOL_KEYS if entry.get(key)), None)
    if called or role in _TOOL_ROLES:
        raise InputError(f"message {number} has `{called or role}`: {_NO_TOOLS}")
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise InputError(
            f"message {number} has the role {role!r:.40}; expected one of"
            f" {listing(list(_ROLES))}"
        )
    content = entry.get("content")
    text = _text(entry.get("value") if content is None else content, number)
    return {"role": _ROLES[role.lower()], "content": text}


def _text(content: object, number: int) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if texts and all(isinstance(text, str) for text in texts):
        return "".join(map(str, texts))
    other = next(
        (
            part
            for part, text in zip(parts, texts, strict=True)
            if not isinstance(text, str)
        ),
        content,
    )
    raise InputError(f"message {number} has a content that is no text: {other!r:.60}")


def _thought(entry: Mapping[str, Any]) -> str:
    thought = next((entry[key] for key in _THOUGHTS if entry.get(key)), "")
    return thought if isinstance(thought, str) else ""
