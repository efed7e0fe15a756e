"""AlpacaEval: 805 instructions, replies against GPT-4 Turbo's (Dubois et al. 2024,
arXiv:2404.04475).

Our judging client asks the judge; the alpaca-eval library makes metrics,
leaderboard.csv and annotations.json.
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from alignkit import (
    Eval,
    JudgeTask,
    MissingError,
    Sample,
    Score,
    hookimpl,
)

from ._alpaca import alpaca_leaderboard
from ._alpaca_question import ranking
from ._reply import reply_text

_RANK = re.compile(
    r"""['"]model['"]\s*:\s*['"](m1|m2)['"]\s*,\s*['"]rank['"]\s*:\s*([12])\b"""
)


def samples(
    rows: Iterable[dict[str, Any]], render: Callable[..., Any]
) -> Iterator[Sample]:
    """One sample per instruction."""
    if importlib.util.find_spec("alpaca_eval") is None:
        raise MissingError(
            "eval 'alpaca' needs the package 'alpaca-eval': pip install"
            " 'alignkit[alpaca]'"
        )
    for row in rows:
        yield Sample(
            f"alpaca-{row['position']}",
            render({"question": row["question"]}),
            None,
            row,
        )


def ours_first(sample: Sample) -> bool:
    """Whether our reply is shown as m1: by the instruction, so that the judge's
    position bias cancels.
    """
    return hashlib.sha256(sample.metadata["question"].encode()).digest()[0] % 2 == 0


def conversations(sample: Sample, response: str) -> list[list[dict[str, str]]]:
    """Both replies, to be ranked; nothing is asked about equal ones."""
    ours, reference = reply_text(response), sample.metadata["reference"]
    if ours == reference:
        return []
    first, second = (ours, reference) if ours_first(sample) else (reference, ours)
    return ranking(sample.metadata["question"], first, second)


def parse(sample: Sample, answers: Sequence[str]) -> Score | None:
    """1 where our reply ranks first, 0 where the reference does, a half for equal
    replies.
    """
    if not answers:
        return Score(0.5, "ok", explanation="equal replies")
    ranks: dict[str, set[str]] = {"1": set(), "2": set()}
    for model, rank in _RANK.findall(answers[0]):
        ranks[rank].add(model)
    if len(ranks["1"]) > 1 or len(ranks["2"]) > 1 or ranks["1"] == ranks["2"]:
        return None
    best = "".join(ranks["1"]) or ("m2" if "m1" in ranks["2"] else "m1")
    won = float((best == "m1") == ours_first(sample))
    return Score(won, explanation=f"judge: {answers[0][:200]}")


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="alpaca",
        samples=samples,
        judge=JudgeTask(
            conversations=conversations,
            parse=parse,
            sampling={"temperature": 0.0, "max_new_tokens": 100},
        ),
        summarize=alpaca_leaderboard,
        data={"dataset": "alpaca"},
        prompt="zero_shot_system",
        sampling={"temperature": 0.0, "max_new_tokens": 1024, "stop": ["# Query:"]},
        metric="win_rate",
        source="CS336 assignment 5, supplement 2.3 (the limit of 1,024 tokens is ours)",
    )
