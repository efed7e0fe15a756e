"""OpenMathReasoning: long traces on competition problems (Moshkov et al. 2025,
arXiv:2504.16891). Streamed.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_rows


def load(
    *,
    split: str = "cot",
    path: str | None = None,
    limit: int | None = None,
    max_characters: int | None = None,
) -> list[dict[str, Any]]:
    """`question`, `response` (the trace, in the r1_zero form) and `truth`; traces over
    `max_characters` are left out.

    The trace's own opening `<think>` is dropped, because the r1_zero prompt has it
    already; the text after `</think>` becomes the answer's tag.
    """
    local = (f"open_math_reasoning_{split}.jsonl",)
    hub = "nvidia/OpenMathReasoning"
    rows = read_rows(path=path, local=local, hub=hub, split=split, stream=True)
    return list(islice(_traces(rows, max_characters), limit))


def _traces(rows: Any, longest: int | None) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        trace, truth = row.get("generated_solution"), row.get("expected_answer")
        if (
            not isinstance(trace, str)
            or not isinstance(row.get("problem"), str)
            or truth is None
        ):
            raise InputError(
                f"OpenMathReasoning row {number}: expected problem, generated_solution,"
                " expected_answer"
            )
        thought, closed, _ = trace.removeprefix("<think>").partition("</think>")
        if not closed or (longest is not None and len(trace) > longest):
            continue
        response = f"{thought.rstrip()} </think> <answer> {truth} </answer>"
        yield {
            "id": f"open-math-reasoning-{number - 1}",
            "question": row["problem"],
            "response": response,
            "truth": str(truth),
        }


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("open_math_reasoning", load)
