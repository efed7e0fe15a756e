"""MMLU, 14,042 questions in 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300):
generated answers or likelihoods.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignkit import (
    Eval,
    InputError,
    Sample,
    Score,
    breakdown,
    hookimpl,
    parse_mmlu_response,
)

LETTERS = "ABCD"
# Every other subject is `other`, as in the authors' own table (lm-eval counts anatomy
# as STEM).
CATEGORIES = {
    "STEM": (
        "abstract_algebra astronomy college_biology college_chemistry"
        " college_computer_science college_mathematics college_physics"
        " computer_security conceptual_physics electrical_engineering"
        " elementary_mathematics high_school_biology high_school_chemistry"
        " high_school_computer_science high_school_mathematics high_school_physics"
        " high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history"
        " high_school_world_history international_law jurisprudence logical_fallacies"
        " moral_disputes moral_scenarios philosophy prehistory professional_law"
        " world_religions"
    ),
    "social sciences": (
        "econometrics high_school_geography high_school_government_and_politics"
        " high_school_macroeconomics high_school_microeconomics high_school_psychology"
        " human_sexuality professional_psychology public_relations security_studies"
        " sociology us_foreign_policy"
    ),
}


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
        subject = name.replace("_", " ")
        metadata = {
            "question": row["question"],
            "subject": name,
            "category": _category(name),
        }
        if mode == "likelihood":
            head = f"Multiple-choice questions on {subject}, each with its answer.\n\n"
            shown = [
                *(
                    f"{_block(example)} {example['truth']}"
                    for example in row.get("examples", ())
                ),
                _block(row),
            ]
            choices = tuple(f" {letter}" for letter in LETTERS)
            yield Sample(
                row["id"], head + "\n\n".join(shown), row["truth"], metadata, choices
            )
        elif row.get("examples"):
            raise InputError(
                "MMLU: shots are shown with `mode: likelihood` only; leave shots out,"
                " or set that mode"
            )
        else:
            asked = (
                f"This is a multiple-choice question on {subject}. Reply with one"
                ' sentence of the form "The correct answer is _", with the letter A,'
                f" B, C or D in the place of the blank.\n\nQuestion: {_block(row)}"
            )
            yield Sample(
                row["id"], render({**row, "question": asked}), row["truth"], metadata
            )


def _block(row: Mapping[str, Any]) -> str:
    options = "\n".join(
        f"{letter}. {text}"
        for letter, text in zip(LETTERS, row["options"], strict=True)
    )
    return f"{row['question']}\n{options}\nAnswer:"


def _category(subject: str) -> str:
    return next(
        (name for name, subjects in CATEGORIES.items() if subject in subjects.split()),
        "other",
    )


def score(sample: Sample, response: str) -> Score:
    """The letter named, against the truth."""
    letter = parse_mmlu_response({}, response)
    return (
        Score(0.0, "unparsed")
        if letter is None
        else Score(float(letter == sample.truth), explanation=letter)
    )


def summarize(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Accuracy by subject and category, and the plain mean over subjects."""
    by_subject = breakdown(results, "subject")
    mean = (
        sum(s["value"] for s in by_subject.values()) / len(by_subject)
        if by_subject
        else None
    )
    return {
        "by_subject": by_subject,
        "by_category": breakdown(results, "category"),
        "mean_of_subjects": mean,
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
