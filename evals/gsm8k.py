"""GSM8K, 1,319 test problems, answered in free text (Cobbe et al. 2021,
arXiv:2110.14168; settings of CS336).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from alignkit import Eval, Sample, Score, grade, hookimpl, truth_texts

from ._math import solved
from ._numbers import parse_gsm8k_response, shown, stated_number


def samples(
    rows: Iterable[dict[str, Any]],
    render: Callable[..., Any],
    *,
    suffix: str | None = None,
    grader: Literal["number", "tags", "box"] = "number",
) -> Iterator[Sample]:
    """One sample per problem.

    `suffix` follows the question inside the prompt; where nothing is said, `Answer:` on
    a line of its own for `grader: number`, else nothing. `grader`: the number that the
    reply states, or the grader of r1_zero on what stands in answer tags or a box, so
    that what trains is what is measured.
    """
    if suffix is None:
        suffix = "\nAnswer:" if grader == "number" else ""
    forms = {"tags": "r1_zero", "box": "boxed"}
    for row in rows:
        asked = (
            {**row, "question": row["question"] + suffix} if "question" in row else row
        )
        metadata = {"question": row.get("question", "")}
        if grader != "number":
            metadata["form"] = forms[grader]
        yield Sample(
            row["id"],
            render(asked),
            row["truth"],
            metadata,
            reasoning="strip" if grader == "number" else "keep",
        )


def score(
    sample: Sample, response: str, *, parse: Literal["careful", "published"] = "careful"
) -> Score:
    """The number that the reply states, compared as a number; or the grade of its form.

    `parse: published` reads the last number of the whole reply, as CS336.
    """
    if "form" in sample.metadata:
        return grade(response, sample.truth, form=sample.metadata["form"])
    last = parse_gsm8k_response(response)
    published = None if last is None else Fraction(Decimal(last))
    careful = stated_number(response)
    number = careful if parse == "careful" else published
    parts = {"read_alike": float(careful == published)}
    if number is None:
        return Score(0.0, "unparsed", parts, parse, "no number in the response")
    truths = (
        Fraction(Decimal(text.replace(",", ""))) for text in truth_texts(sample.truth)
    )
    right = number in truths
    status = "ok" if right else "wrong"
    said = shown(number)
    return Score(float(right), status, parts, parse, f"read {said}", answer=said)


def example(sample: Sample, row: Mapping[str, Any]) -> str:
    """A solved problem's answer."""
    return solved(sample.metadata.get("form", "number"), row)


def summarize(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """How many rows the careful and the published rule read differently."""
    alike = [result["parts"].get("read_alike", 1.0) for result in results]
    return {"read_differently": alike.count(0.0)}


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="gsm8k",
        samples=samples,
        score=score,
        summarize=summarize,
        example=example,
        data={"dataset": "gsm8k", "split": "test"},
        prompt="zero_shot_system",
        sampling={"temperature": 0.0, "max_new_tokens": 512, "stop": ["# Query:"]},
        source="CS336 assignment 5, supplement 2.2 (the limit of 512 tokens is ours)",
    )
