"""Find the answer in a response: answer tags, the last box with nested braces."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["r1_zero", "boxed", "plain"]
FORMS: tuple[str, ...] = get_args(Form)


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` (or `\fbox{…}` where there is no box),
    braces matched.

    None when there is no such command, when its braces never close, or when something
    stands between the command and its brace, as in the published graders.
    """
    start = text.rfind("\\boxed")
    if start < 0:
        start = text.rfind("\\fbox")
    if start < 0:
        return None
    end = _closing_brace(text, start)
    if end is None or not text.startswith("\\boxed{", start):
        return None
    return text[start + len("\\boxed{") : end]


def _closing_brace(text: str, start: int) -> int | None:
    """The index of the brace that closes the first one opened after `start`."""
    depth = 0
    at = start
    while True:
        closing = text.find("}", at)
        if closing < 0:
            return None
        depth += text.count("{", at, closing) - 1
        if depth == 0:
            return closing
        at = closing + 1


def has_r1_zero_format(response: str) -> bool:
    """The format rule of the r1_zero prompt: `</think> <answer>` with exactly one
    space, and `</answer>`.
    """
    return "</think> <answer>" in response and "</answer>" in response


def extract_answer(response: str, form: Form = "r1_zero") -> str | None:
    r"""The answer that a response gives, or None when it gives none.

    `r1_zero`: the text after the last `<answer>` without `</answer>`, of a response in
        that format; when it holds `\boxed`, the last box. `boxed`: the last box of the
        response. `plain`: the response itself.
    """
    if form == "plain":
        return response
    if form == "r1_zero":
        if not has_r1_zero_format(response):
            return None
        response = response[response.rfind("<answer>") + len("<answer>") :].replace(
            "</answer>", ""
        )
        if "\\boxed" not in response:
            return response
    elif form != "boxed":
        raise ValueError(f"form {form!r} is unknown; known: {', '.join(FORMS)}")
    return last_boxed(response) if "\\boxed" in response else None
