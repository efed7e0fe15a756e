"""Read the answers of OpenAI-compatible servers: texts, how they ended, log-probs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignkit.endpoint.costs import usage_of
from alignkit.endpoint.faults import BadAnswer, Refused
from alignkit.sampling import Completion, stop_end
from alignkit.thinking import with_thought

# The text of one entry of `choices` as a server of its own ways writes it; None where
# the entry is written as everywhere.
ReadChoice = Callable[[Mapping[str, Any]], str | None]

# Reasons of servers that mean: this is not the whole answer.
CUT = (
    "length",
    "max_tokens",
    "content_filter",
    "safety",
    "recitation",
    "abort",
    "insufficient_system_resource",
)


def completions(
    answer: Any, texts_of: Callable[[Any], str], stop: Sequence[str]
) -> list[Completion]:
    """The completions of one answer; `texts_of` reads the text of a choice.

    Raises:
        BadAnswer, LookupError, TypeError, AttributeError: an answer of another shape.
    """
    choices = answer.get("choices")
    if not choices:
        raise BadAnswer(f"no choices in it: {answer.get('error', 'empty')}", final=True)
    texts = [texts_of(choice) for choice in choices]
    shares = _shares(answer, texts)
    return [
        _completion(choice, text, share, stop)
        for choice, text, share in zip(choices, texts, shares, strict=True)
    ]


def text_of(choice: Mapping[str, Any], *, reasoning: bool, settles: bool) -> str:
    """The text of a choice, of either API; `reasoning` puts a separate one in front.
    With `settles` what was refused or filtered is no text.

    Raises:
        Refused: as `settles` says. BadAnswer: a choice of another shape.
    """
    end = choice.get("finish_reason")
    if end == "error":
        raise BadAnswer(f"a choice without an end: {choice.get('error', end)}")
    if "message" not in choice:
        return _string(choice["text"])
    message = choice["message"]
    text = _content(message.get("content"))
    if not text and settles:
        if message.get("refusal"):
            raise Refused(_string(message["refusal"]))
        if end == "content_filter":
            raise Refused("the answer was filtered (finish_reason content_filter)")
    text = text or _string(message.get("refusal") or "")
    thought = message.get("reasoning_content") or message.get("reasoning")
    return with_thought(_string(thought), text) if reasoning and thought else text


def _content(content: object) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, list):
        texts = [part["text"] if isinstance(part, dict) else part for part in content]
        return "".join(map(_string, texts))
    return _string(content or "")


def continuation_logprob(answer: Any, choice: str) -> tuple[float, bool | None]:
    """Sum over the echoed prompt's last tokens that cover `choice`, in nats (the one
    generated token behind them is left out), and whether each is the likeliest; None
    where the server does not say.
    """
    given = answer["choices"][0]["logprobs"]
    tokens, values = given["tokens"], given["token_logprobs"]
    counts = usage_of(answer["usage"])
    if counts is None or len(tokens) < counts[0]:
        raise ValueError("fewer tokens than the prompt has")
    tops = given.get("top_logprobs")
    text, total, likeliest = "", 0.0, True
    for position in range(counts[0] - 1, 0, -1):
        text = tokens[position] + text
        total += float(values[position])
        if tops:
            likeliest &= values[position] >= max(tops[position].values())
        if text.endswith(choice):
            return total, likeliest if tops else None
    raise ValueError("the echoed tokens do not end with the choice")


def _completion(
    choice: Mapping[str, Any], text: str, share: int, stop: Sequence[str]
) -> Completion:
    logprobs = _logprobs(choice.get("logprobs"))
    kept = text[: stop_end(text, stop) or None]
    cut = str(choice.get("finish_reason")).lower() in CUT and kept == text
    ids = choice.get("token_ids")
    counted = ids if isinstance(ids, list) and ids else logprobs
    return Completion(
        kept,
        "length" if cut else "stop",
        len(counted) if counted else share,
        logprobs=logprobs,
    )


def _shares(answer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, by its characters: servers count all of them in one sum."""
    total = (usage_of(answer.get("usage")) or (0, 0))[1]
    characters = sum(map(len, texts))
    if not characters:
        return [total // len(texts)] * len(texts)
    return [round(total * len(text) / characters) for text in texts]


def _logprobs(given: Any) -> tuple[float, ...] | None:
    if not given:
        return None
    values = given.get("token_logprobs") or []
    if tokens := given.get("content"):
        values = [token["logprob"] for token in tokens]
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise BadAnswer("a log-prob is no number")
    return numbers or None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise BadAnswer("the text is no string", final=True)
    return value
