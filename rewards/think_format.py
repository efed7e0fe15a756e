"""Whether a response thinks first and answers after, whatever it answers."""

from collections.abc import Iterator, Mapping, Sequence

from alignkit import Reward, Score, hookimpl

_MARK = "<think>"


def think_format(response: str, prompt: str | Sequence[Mapping[str, str]]) -> Score:
    """1 for one `<think>…</think>` block followed by an answer. A prompt that ends with
    `<think>` has opened it.

    >>> think_format("so </think> 42", "Assistant: <think>").reward, think_format("so </think> 42", "Hi").reward
    (1.0, 0.0)
    """
    last = (
        prompt if isinstance(prompt, str) else (prompt[-1]["content"] if prompt else "")
    )
    opened = last.rstrip().endswith(_MARK)
    text = response.lstrip()
    inside = (
        response
        if opened
        else text.removeprefix(_MARK)
        if text.startswith(_MARK)
        else None
    )
    good = (
        inside is not None
        and _MARK not in inside
        and inside.count("</think>") == 1
        and bool(inside.partition("</think>")[2].strip())
    )
    return Score(
        float(good),
        "ok" if good else "unparsed",
        {"format_reward": float(good)},
        "format",
    )


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("think_format", think_format, style=True)
