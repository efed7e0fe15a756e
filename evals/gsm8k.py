"""GSM8K, 1,319 test problems, answered in free text (Cobbe et al. 2021,
arXiv:2110.14168; settings of CS336).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from alignkit import Eval, Sample, Score, hookimpl

# A minus is a sign unless what stands before it makes it a subtraction.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-\u2212])?\$?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)


def samples(
    rows: Iterable[dict[str, Any]],
    render: Callable[..., Any],
    *,
    suffix: str = "\nAnswer:",
) -> Iterator[Sample]:
    """One sample per problem; `suffix` follows the question inside the prompt."""
    for row in rows:
        asked = (
            {**row, "question": row["question"] + suffix} if "question" in row else row
        )
        yield Sample(
            row["id"],
            render(asked),
            row["truth"],
            {"question": row.get("question", "")},
        )


def score(sample: Sample, response: str) -> Score:
    """The last number of the response, compared as a number."""
    found = parse_gsm8k_response(response)
    if found is None:
        return Score(0.0, "unparsed", explanation="no number in the response")
    truth = str(sample.truth).replace(",", "")
    return Score(
        float(Decimal(found) == Decimal(truth)), explanation=f"read {found[:40]}"
    )


def parse_gsm8k_response(model_output: str) -> str | None:
    """The last number of the output as text, without thousands separators (`-1,234.5`
    -> `-1234.5`), else None.
    """
    found = _NUMBER.findall(model_output)
    return (
        found[-1].replace(",", "").replace("$", "").replace("\u2212", "-")
        if found
        else None
    )


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="gsm8k",
        samples=samples,
        score=score,
        data={"dataset": "gsm8k", "split": "test"},
        prompt="zero_shot_system",
        sampling={"temperature": 0.0, "max_new_tokens": 512, "stop": ["# Query:"]},
        source="CS336 assignment 5, supplement 2.2 (the limit of 512 tokens is ours)",
    )
