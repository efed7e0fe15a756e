"""Which of two replies a judge sees first, and what its verdicts come to: its position
bias cancels over the instructions, or is measured by asking in both orders.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignkit import JudgeTask, Sample, Score, breakdown

from ._reply import reply_text

Messages = list[dict[str, str]]
# the share of the first reply in a verdict: 1 better, 0 worse; None where it is none
Share = Callable[[str], float | None]


def ours_first(sample: Sample) -> bool:
    """Whether our reply is shown first: by the instruction."""
    return hashlib.sha256(sample.metadata["question"].encode()).digest()[0] % 2 == 0


def comparing(
    ask: Callable[[str, str, str], Messages],
    share: Share,
    sampling: Mapping[str, Any],
    *,
    fixed: bool = False,
) -> JudgeTask:
    """A task that asks which of two replies is better, in one order or in both.

    `ask` writes the question about (instruction, first, second). `fixed`: the reference
    comes first wherever one order is asked for.
    """

    def orders(sample: Sample) -> list[bool]:
        first = not fixed and ours_first(sample)
        return [first, not first] if sample.metadata.get("both_orders") else [first]

    def conversations(sample: Sample, response: str) -> list[Messages]:
        ours, reference = reply_text(response), sample.metadata["reference"]
        if ours == reference:
            return []
        pairs = {True: (ours, reference), False: (reference, ours)}
        question = sample.metadata["question"]
        return [ask(question, *pairs[first]) for first in orders(sample)]

    def parse(sample: Sample, answers: Sequence[str]) -> Score | None:
        if not answers:
            return Score(0.5, "ok", explanation="equal replies")
        shares = [share(answer) for answer in answers]
        known = [one for one in shares if one is not None]
        if len(known) < len(shares):
            return None
        won = [
            one if first else 1 - one
            for one, first in zip(known, orders(sample), strict=True)
        ]
        parts = {}
        if len(won) > 1:
            parts["flipped"] = float((won[0] - 0.5) * (won[1] - 0.5) < 0)
        said = " | ".join(answer[:200] for answer in answers)
        return Score(sum(won) / len(won), parts=parts, explanation=f"judge: {said}")

    return JudgeTask(conversations=conversations, parse=parse, sampling=sampling)


def flips(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often the judge prefers the other reply in the other order, of the pairs that
    it saw in both.
    """
    name = "order_flips"
    both = [
        {**row, "reward": row["parts"]["flipped"], "metadata": {"order": name}}
        for row in results
        if "flipped" in row["parts"]
    ]
    return breakdown(both, "order")
