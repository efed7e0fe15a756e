"""What the grades of stored rows come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from alignkit.data.lengths import nearest_rank
from alignkit.errors import InputError, ending
from alignkit.evaluate.summary import interval, tally
from alignkit.grading.stored import GradedRow

SHOWN = 10  # problems and crashes that are quoted
_TOLD = 600  # characters of a crash


def summarize_grades(
    file: str, rewards: Sequence[str], rows: Sequence[GradedRow], seconds: float
) -> dict[str, Any]:
    """The summary of a graded file: by reward, and where the rewards differ.

    Raises:
        InputError: no row could be graded.
    """
    if not rows:
        raise InputError(f"{file} is empty: it holds no rows")
    problems = [row.stored.problem for row in rows if row.stored.problem]
    if len(problems) == len(rows):
        raise InputError(
            f"none of the {len(rows)} rows can be graded:", *problems[:SHOWN]
        )
    return {
        "file": file,
        "rows": len(rows),
        "seconds": round(seconds, 3),
        "problems": problems,
        "rewards": {label: _of_reward(label, rows) for label in rewards},
        "disagreements": _disagreements(rows) if len(rewards) > 1 else [],
    }


def explain_row(row: GradedRow) -> dict[str, dict[str, Any]]:
    """{reward: how it decided} of one row."""
    return {
        label: {
            "reward": score.reward,
            "status": score.status,
            "parts": dict(score.parts),
            "stage": score.stage,
            "explanation": score.explanation,
            "seconds": seconds,
        }
        for label, (score, seconds) in row.grades.items()
    }


def _of_reward(label: str, rows: Sequence[GradedRow]) -> dict[str, Any]:
    """The mean reward with its 95 % interval (over questions, where the rows name
    these), counts and times.
    """
    graded = [(row.stored, row.grades[label]) for row in rows if row.grades]
    scores = [result.score for _, result in graded]
    questions = [
        str(stored.row.get("prompt", stored.row.get("question", stored.number)))
        for stored, _ in graded
    ]
    mean, low, high = interval([score.reward for score in scores], questions)
    times = sorted(result.seconds for _, result in graded)
    return {
        "n": len(scores),
        "accuracy" if all(score.reward in (0, 1) for score in scores) else "mean": mean,
        "low": low,
        "high": high,
        "status": dict(Counter(str(score.status) for score in scores).most_common()),
        "tally": tally([{"parts": score.parts} for score in scores]),
        "stages": dict(Counter(score.stage for score in scores).most_common()),
        "seconds": {
            "sum": round(sum(times), 4),
            "p50": nearest_rank(times, 50),
            "p99": nearest_rank(times, 99),
            "max": times[-1],
        },
        "errors": _errors(rows, label),
    }


def _errors(rows: Sequence[GradedRow], label: str) -> list[str]:
    crashed = [
        row for row in rows if row.grades and row.grades[label].score.status == "error"
    ]
    return [
        f"line {r.stored.number}: {ending(r.grades[label].score.explanation, _TOLD)}"
        for r in crashed[:SHOWN]
    ]


def _disagreements(rows: Sequence[GradedRow]) -> list[dict[str, Any]]:
    """The rows whose rewards are not all the same, with what each reward said."""
    return [
        {
            "line": row.stored.number,
            **{
                label: f"{score.reward:g} ({score.stage or score.status})"
                for label, (score, _) in row.grades.items()
            },
        }
        for row in rows
        if len({result.score.reward for result in row.grades.values()}) > 1
    ]
