"""Any judge as a reward: it rates each response, and the rating is scaled to 0..1."""

from collections.abc import Iterator, Sequence
from typing import Any

from alignkit import InputError, Judge, JudgeClient, Reward, Score, find_judge, hookimpl

from ._rating import QUESTION, ask, rating


def judge(
    responses: Sequence[str],
    prompts: Sequence[Any],
    *,
    judge: str = "fireworks",
    base_url: str | None = None,
    question: str = QUESTION,
    lowest: int = 1,
    highest: int = 10,
    max_new_tokens: int = 256,
    concurrency: int = 16,
    requests_per_minute: float | None = None,
) -> list[Score]:
    """(rating - lowest) / (highest - lowest), from the last `Rating: N` of the judge's
    answer.

    `judge`: a judge's name, or `name:model`. `question`: a text with {prompt} and
        {response}. A response whose rating cannot be had or read has the status
        `error`.
    """
    if lowest >= highest or "{response}" not in question:
        raise InputError(
            "reward 'judge': lowest must be below highest, and the question must hold"
            " {response}"
        )
    client = JudgeClient(
        asked_judge(judge, base_url),
        None,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
    )

    def readable(_: str, texts: Sequence[str]) -> bool:
        return rating(texts[0], lowest, highest) is not None

    asked = [
        (str(number), [ask(question, prompt, response, lowest, highest)])
        for number, (prompt, response) in enumerate(
            zip(prompts, responses, strict=True)
        )
    ]
    greedy = {"temperature": 0.0, "max_new_tokens": max_new_tokens}
    verdicts = client.ask(asked, greedy, readable)
    scores = []
    for id_, _ in asked:
        if id_ in verdicts.missing:
            why = f"no rating: {verdicts.missing[id_]}"
            scores.append(Score(0.0, "error", stage="judge", explanation=why))
            continue
        value = rating(verdicts.texts[id_][0], lowest, highest)
        scaled = (value - lowest) / (highest - lowest)
        scores.append(Score(scaled, "ok", {"rating": value}, stage="judge"))
    return scores


def asked_judge(judge: str, base_url: str | None) -> Judge:
    return find_judge(judge, base_url)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("judge", judge, asks=asked_judge)
