"""UltraFeedback: replies against reference replies, by a reward model (Cui et al. 2024,
arXiv:2310.01377).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from alignkit import Eval, JudgeTask, Sample, Score, hookimpl

from ._reply import reply_text

_REWARD = re.compile(
    r"\s*(?:reward:)?\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*", re.ASCII
)


def samples(
    rows: Iterable[dict[str, Any]], render: Callable[..., Any]
) -> Iterator[Sample]:
    """One sample per prompt."""
    for row in rows:
        yield Sample(
            row["id"],
            render(row),
            None,
            {"question": row["question"], "reference": row["reference"]},
        )


def conversations(sample: Sample, response: str) -> list[list[dict[str, str]]]:
    """Our reply and the reference, each to be rated; the judge's store rates a
    reference once for all models.
    """
    user = {"role": "user", "content": sample.metadata["question"]}
    replies = (reply_text(response), sample.metadata["reference"])
    return [[user, {"role": "assistant", "content": reply}] for reply in replies]


def parse(sample: Sample, answers: Sequence[str]) -> Score | None:
    """Rewards as Nemotron writes them (`reward:-3.2`) or bare numbers. Scores compare
    within one prompt only.
    """
    found = [_REWARD.fullmatch(answer) for answer in answers]
    ours, reference = (float(m[1]) if m else math.nan for m in found)
    if not (math.isfinite(ours) and math.isfinite(reference)):
        return None
    won = 0.5 if ours == reference else float(ours > reference)
    parts = {
        "reward": ours,
        "reference_reward": reference,
        "improvement": ours - reference,
    }
    return Score(won, "ok" if won else "wrong", parts)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="ultrafeedback",
        samples=samples,
        judge=JudgeTask(conversations=conversations, parse=parse),
        data={"dataset": "ultrafeedback", "split": "test_prefs"},
        prompt="chat",
        sampling={"temperature": 0.0, "max_new_tokens": 1024},
        metric="win_rate",
        source=(
            "HuggingFaceH4/ultrafeedback_binarized, test_prefs, against the preferred"
            " reply"
        ),
    )
