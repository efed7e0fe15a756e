"""Whether a gain exceeds the error of its grader, where a person has labelled what it
graded (`align grade --label`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.graders import labels

if TYPE_CHECKING:
    from alignkit.report.collect import Variant
    from alignkit.report.results import Result
    from alignkit.report.runs import EvalResult, RunData


def gains(
    metric: str, variants: Sequence[Variant], results: Sequence[Result]
) -> Iterator[str]:
    """Of each difference to the base: whether errors of the grader could have made it.

    If one side has all the responses that are wrongly called right and the other all
    those wrongly called wrong, a difference of their two shares comes from nothing;
    the upper ends of their intervals are taken.
    """
    for variant, result in zip(variants, results, strict=True):
        sheet = _sheet(metric, [*variant.runs, *variants[0].runs])
        if result.difference is None or sheet is None:
            continue
        file, reward, rows = sheet
        errors = labels.errors(rows, reward)
        bound = (errors.wrongly_right.high or 0) + (errors.wrongly_wrong.high or 0)
        beyond = abs(result.difference.value) > bound
        yield (
            f"{metric}, {variant.label}: the difference of {result.difference.value:+.3f}"
            f" {'exceeds' if beyond else 'does not exceed'} what errors of grader"
            f" '{reward}' could make, at most {bound:.3f} by {labels.labelled(rows)}"
            f" labels ({file})."
        )


def _sheet(
    metric: str, runs: Sequence[RunData]
) -> tuple[Path, str, list[dict[str, Any]]] | None:
    """The first sheet with labels for the grader of an eval: beside the samples of one
    of these runs, else of a run's rollouts.
    """
    evals = [(run, run.last_eval(metric)) for run in runs]
    measured = [(run, each) for run, each in evals if each is not None]
    files = [labels.sheet_of(each.folder / "samples.jsonl") for _, each in measured]
    files += [labels.sheet_of(run.folder) for run, _ in measured]
    graders = [_grader(each) for _, each in measured]
    for file, grader in zip(files, graders * 2, strict=True):
        try:
            rows = labels.read(file) if file.is_file() else []
        except InputError:
            continue  # `align grade --label` says what is wrong with it
        named = {reward for row in rows for reward in row["verdicts"]}
        for reward in sorted(named):
            if grader == reward.split(":")[0] and labels.labelled(rows):
                return file, reward, rows
    return None


def _grader(each: EvalResult) -> str | None:
    grader = each.summary.get("provenance", {}).get("grader")
    return grader.get("name") if isinstance(grader, dict) else None
