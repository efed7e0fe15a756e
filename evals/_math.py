"""What the mathematics benchmarks share: rows, samples, the score, breakdowns."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignkit import (
    Eval,
    InputError,
    Sample,
    Score,
    breakdown,
    extract_answer,
    grade,
)

log = logging.getLogger(__name__)

_QUESTION = ("problem", "question")
_TRUTH = ("answer", "final_answer", "truth")
_SUBJECT = ("subject", "type", "subfield")


def math_rows(rows: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows of a mathematics benchmark with `id`, `question`, `truth`, and where known
    `level`, `subject`, `solution`.

    The truth is the row's answer, or the last box of its solution; whole floats become
    integers (`27.0` is 27). Rows whose answer is the empty text (two of MATH's 7,500
    for training) are left out with a warning.

    Raises:
        InputError: a row without question or answer, or no row with an answer.
    """
    found, blank = [], []
    for index, row in enumerate(rows):
        question = next((row[k] for k in _QUESTION if row.get(k)), None)
        truth = next((row[k] for k in _TRUTH if row.get(k) not in (None, "", [])), None)
        if truth is None and isinstance(row.get("solution"), str):
            truth = extract_answer(row["solution"], "boxed")
        if truth in (None, "") and "" in [row.get(k) for k in _TRUTH]:
            blank.append(index + 1)
            continue
        # not equal to itself: NaN
        if not isinstance(question, str) or truth is None or truth != truth:
            columns = ", ".join(sorted(map(str, row)))
            raise InputError(
                f"{name}, row {index + 1}: expected a problem and an answer; it has"
                f" {columns}"
            )
        more = {"level": row.get("level"), "solution": row.get("solution")}
        more["subject"] = next((row[k] for k in _SUBJECT if row.get(k)), None)
        kept = {k: v for k, v in more.items() if v not in (None, "")}
        found.append(
            {
                "id": f"{name}-{index}",
                "question": question,
                "truth": _plain(truth),
                **kept,
            }
        )
    if blank and not found:
        raise InputError(f"{name}: expected answers; that of every row is empty")
    if blank:
        log.warning(
            "%s: %d rows left out, as their answer is empty: %s",
            name,
            len(blank),
            ", ".join(map(str, blank[:20])),
        )
    return found


def _plain(truth: Any) -> Any:
    if isinstance(truth, list):
        return [_plain(t) for t in truth]
    if isinstance(truth, float) and truth.is_integer():
        return int(truth)
    return (
        truth.strip().removeprefix("$").removesuffix("$")
        if isinstance(truth, str)
        else truth
    )


def math_samples(
    rows: Iterable[Mapping[str, Any]],
    render: Callable[..., Any],
    *,
    answer: Literal["auto", "tags", "box"] = "auto",
) -> Iterator[Sample]:
    r"""One sample per problem.

    `answer` says where the answer must stand: in `<answer>` tags after `</think> `, or
    in a `\boxed{}`; `auto` wants tags of a prompt that names them or ends in an open
    `<think>`, else a box.
    """
    for row in rows:
        prompt = render(row)
        shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        tags = answer == "tags" or (
            answer == "auto"
            and ("<answer>" in shown or shown.rstrip().endswith("<think>"))
        )
        kept = {k: row[k] for k in ("level", "subject") if k in row}
        metadata = {
            "question": row.get("question", shown),
            "form": "r1_zero" if tags else "boxed",
            **kept,
        }
        # the published grader reads the whole
        yield Sample(str(row["id"]), prompt, row["truth"], metadata, reasoning="keep")


def math_score(sample: Sample, response: str, *, fast: bool = True) -> Score:
    """The published grader's verdict; `fast: false` asks math-verify as a last stage."""
    return grade(response, sample.truth, form=sample.metadata["form"], fast=fast)


def solved(form: str, row: Mapping[str, Any]) -> str:
    """The answer of a solved row, in the form in which it is graded."""
    truth = row["truth"][0] if isinstance(row["truth"], list) else row["truth"]
    worked = str(row.get("solution", "")).strip()
    if form == "r1_zero":
        return f" {worked} </think> <answer> {truth} </answer>"
    if form == "boxed" and "\\boxed" not in worked:
        return f"{worked}\nThe answer is $\\boxed{{{truth}}}$.".strip()
    return worked if form == "boxed" else f"{worked}\n#### {truth}".strip()


def math_example(sample: Sample, row: Mapping[str, Any]) -> str:
    """A solved problem's answer."""
    return solved(sample.metadata["form"], row)


def math_summary(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Accuracy by level and by subject, where the data have them."""
    found = {f"by_{key}": breakdown(results, key) for key in ("level", "subject")}
    return {name: groups for name, groups in found.items() if groups}


def math_eval(name: str, **changes: Any) -> Eval:
    """A mathematics benchmark on split `test` of the dataset of the same name;
    `changes` are fields of `Eval`.

    The settings are those of CS336: r1_zero prompt, temperature 1, 1024 tokens, stop at
    `</answer>`.
    """
    settings: dict[str, Any] = {
        "data": {"dataset": name, "split": "test"},
        "prompt": "r1_zero",
        "sampling": {"temperature": 1.0, "max_new_tokens": 1024, "stop": ["</answer>"]},
        **changes,
    }
    return Eval(
        name=name,
        samples=math_samples,
        score=math_score,
        summarize=math_summary,
        example=math_example,
        **settings,
    )
