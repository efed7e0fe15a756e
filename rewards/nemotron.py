"""NVIDIA's Nemotron reward model (Wang et al. 2024, HelpSteer2-Preference,
arXiv:2410.01257) behind its endpoint.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from alignkit import Judge, JudgeClient, Reward, Score, find_judge, hookimpl

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def score_in(text: str) -> float | None:
    """The first number behind a colon: `reward:-3.2`.

    >>> score_in("reward:-3.2")
    -3.2
    """
    _, colon, rest = text.partition(":")
    found = NUMBER.match(rest.strip()) if colon else None
    value = float(found.group()) if found else math.nan
    return value if math.isfinite(value) else None


def nemotron(
    responses: Sequence[str],
    prompts: Sequence[Any],
    *,
    model: str = "nvidia/llama-3.1-nemotron-70b-reward",
    base_url: str = "https://integrate.api.nvidia.com/v1",
    key: str = "NVIDIA_API_KEY",
    concurrency: int = 8,
    requests_per_minute: float | None = None,
    timeout: float = 120.0,
    attempts: int = 8,
) -> list[Score]:
    """The model's score of each response; higher is better, and scores compare within
    one prompt only.

    `key` names an environment variable; an empty one sends no key. The model takes at
    most 4,096 tokens of prompt and response together. A response that got no score has
    the status `error`, never a number of its own.
    """
    client = JudgeClient(
        asked_judge(model, base_url, key),
        None,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        timeout=timeout,
        attempts=attempts,
    )
    asked = [
        (str(i), [conversation(p, r)])
        for i, (p, r) in enumerate(zip(prompts, responses, strict=True))
    ]
    greedy = {"temperature": 0.0, "max_new_tokens": 16}
    verdicts = client.ask(
        asked, greedy, lambda _, texts: score_in(texts[0]) is not None
    )
    return [
        score(verdicts.texts.get(id_), verdicts.missing.get(id_, ""))
        for id_, _ in asked
    ]


def asked_judge(model: str, base_url: str, key: str) -> Judge:
    return find_judge(f"builtin/nvidia:{model}", base_url, key=key)


def conversation(prompt: Any, response: str) -> list[dict[str, str]]:
    """The prompt's messages with the response as the assistant's."""
    before = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [dict(m) for m in prompt]
    )
    return [*before, {"role": "assistant", "content": response}]


def score(texts: tuple[str, ...] | None, why: str) -> Score:
    value = score_in(texts[0]) if texts else None
    if value is None:
        return Score(
            0.0, status="error", stage="nemotron", explanation=f"no score: {why}"
        )
    return Score(value, status="ok", stage="nemotron")


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("nemotron", nemotron, asks=asked_judge)
