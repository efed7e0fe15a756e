"""The answer as a text, equal to the truth."""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import Reward, Score, extract_answer, hookimpl, truth_texts


def exact_match(
    response: str,
    truth: Any,
    *,
    form: Literal["r1_zero", "boxed", "plain"] = "plain",
    ignore_case: bool = False,
) -> Score:
    r"""1 when the answer is the truth (any of a list), white space around both aside.

    `form` says where the answer stands: `plain` is the whole response, `boxed` the last
    `\boxed`, `r1_zero` the answer tags.

    >>> exact_match(" Paris\n", "Paris").reward
    1.0
    """
    answer = extract_answer(response, form)
    if answer is None:
        return Score(
            0.0,
            "unparsed",
            {"format_reward": 0.0, "answer_reward": 0.0},
            "format",
            f"no answer as {form}",
        )
    truths = [
        text.strip()
        for one in (truth if isinstance(truth, list | tuple) else [truth])
        # a worked solution says its answer last
        for text in (truth_texts(one) if "####" in str(one) else [str(one)])
    ]
    answer = answer.strip()
    if ignore_case:
        answer, truths = answer.casefold(), [one.casefold() for one in truths]
    right = answer in truths
    parts = {"format_reward": 1.0, "answer_reward": float(right)}
    return Score(
        float(right),
        parts=parts,
        stage="exact",
        explanation=f"{answer[:120]!r} against {truths!r:.240}",
        answer=answer[:500],
    )


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("exact_match", exact_match)
