"""MMLU, 14,042 questions in 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300):
generated answers or likelihoods.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignkit import Eval, InputError, Sample, Score, breakdown, hookimpl

from ._letters import committed_letter
from ._mmlu import LETTERS, as_question, category_of, parse_mmlu_response, with_examples


def samples(
    rows: Iterable[dict[str, Any]],
    render: Callable[..., Any],
    *,
    mode: Literal["generate", "likelihood"] = "generate",
) -> Iterator[Sample]:
    """One sample per question.

    `generate` asks for the sentence `The correct answer is _`; `likelihood` compares `
    A` to ` D` after `Answer:`, without the prompt template, after the dataset's `shots`
    solved questions.
    """
    for row in rows:
        if row["truth"] not in list(LETTERS):
            raise InputError(
                f"MMLU: the truth of {row['id']} is {row['truth']!r}; expected A, B, C"
                " or D"
            )
        name = row.get("subject") or ""
        metadata = {
            "question": row["question"],
            "subject": name,
            "category": category_of(name),
        }
        if mode == "likelihood":
            choices = tuple(f" {letter}" for letter in LETTERS)
            prompt = with_examples(row, name)
            yield Sample(row["id"], prompt, row["truth"], metadata, choices)
        elif row.get("examples"):
            raise InputError(
                "MMLU: shots are shown with `mode: likelihood` only; leave shots out,"
                " or set that mode"
            )
        else:
            prompt = render({**row, "question": as_question(row, name)})
            yield Sample(row["id"], prompt, row["truth"], metadata)


def score(
    sample: Sample, response: str, *, parse: Literal["careful", "published"] = "careful"
) -> Score:
    """The letter that the reply commits itself to, against the truth.

    `parse: published` reads only the sentence that the question asks for, as CS336.
    """
    published = parse_mmlu_response({}, response)
    careful = committed_letter(response)
    letter = careful if parse == "careful" else published
    parts = {"read_alike": float(careful == published)}
    if letter is None:
        return Score(0.0, "unparsed", parts, parse, "no letter is named")
    right = letter == sample.truth
    status = "ok" if right else "wrong"
    return Score(float(right), status, parts, parse, letter, answer=letter)


def summarize(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Accuracy by subject and category, and the plain mean over subjects."""
    by_subject = breakdown(results, "subject")
    alike = [result["parts"].get("read_alike", 1.0) for result in results]
    values = [subject["value"] for subject in by_subject.values()]
    return {
        # rows that the careful and the published rule read differently
        "read_differently": alike.count(0.0),
        "by_subject": by_subject,
        "by_category": breakdown(results, "category"),
        "mean_of_subjects": sum(values) / len(values) if values else None,
    }


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="mmlu",
        samples=samples,
        score=score,
        summarize=summarize,
        data={"dataset": "mmlu", "split": "test"},
        prompt="zero_shot_system",
        sampling={"temperature": 0.0, "max_new_tokens": 128, "stop": ["# Query:"]},
        source="CS336 assignment 5, supplement 2.1 (the limit of 128 tokens is ours)",
    )
