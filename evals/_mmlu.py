"""MMLU's subjects and their categories, how a question is put, an answer read."""

import re
from collections.abc import Mapping
from typing import Any

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
# A small letter counts where nothing is said on: `the answer is a pair of ions` names
# none.
_MMLU_SENTENCE = re.compile(
    r"\b(?i:answer\s+is)\s*:?\s*[*(\s]*(?:([A-D])\b|([a-d])(?=\s*(?:[.:,)*]|$)))"
)
_MMLU_LETTER = re.compile(r"\s*\(?([A-D])\)?\s*(?:[.:,)]|$)")


def category_of(subject: str) -> str:
    """`STEM`, `humanities`, `social sciences` or `other`."""
    return next(
        (name for name, subjects in CATEGORIES.items() if subject in subjects.split()),
        "other",
    )


def as_question(row: Mapping[str, Any], subject: str) -> str:
    """The question that is answered by a sentence."""
    return (
        f"This is a multiple-choice question on {subject.replace('_', ' ')}. Reply with"
        ' one sentence of the form "The correct answer is _", with the letter A, B, C'
        f" or D in the place of the blank.\n\nQuestion: {_block(row)}"
    )


def with_examples(row: Mapping[str, Any], subject: str) -> str:
    """The question that a letter goes on with, after the row's solved examples."""
    head = f"Multiple-choice questions on {subject.replace('_', ' ')}, each with its"
    solved = [
        f"{_block(example)} {example['truth']}" for example in row.get("examples", ())
    ]
    return f"{head} answer.\n\n" + "\n\n".join([*solved, _block(row)])


def _block(row: Mapping[str, Any]) -> str:
    options = "\n".join(
        f"{letter}. {text}"
        for letter, text in zip(LETTERS, row["options"], strict=True)
    )
    return f"{row['question']}\n{options}\nAnswer:"


def parse_mmlu_response(
    mmlu_example: Mapping[str, Any], model_output: str
) -> str | None:
    """The letter A to D that the output names (`The correct answer is B`, or the letter
    first), else None.
    """
    found = _MMLU_SENTENCE.search(model_output) or _MMLU_LETTER.match(model_output)
    return found[found.lastindex or 1].upper() if found else None
