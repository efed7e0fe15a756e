"""A run's rollouts graded anew: by step, how many verdicts differ, and what each grader
would have made of the advantages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from alignkit.graders.advantages import Recomputed
from alignkit.grading.bound import BoundReward
from alignkit.grading.stored import Fields, GradedRow, StoredRow, gradable
from alignkit.records import Record, browse
from alignkit.run.rows import Row

RIGHT = 1e-6  # an advantage beyond it, above or below 0, pushes


def rollouts(record: Record, rewards: Mapping[str, BoundReward]) -> Iterator[StoredRow]:
    """The rollouts in the order of training, to be graded anew."""
    rows = enumerate(browse.rows(record), 1)
    numbered = ((n, f"rollout {n}", {**row}, "") for n, row in rows)
    return gradable(numbered, Fields(), rewards.values())


def place(row: GradedRow) -> str:
    """Where a rollout stands in its run."""
    step, group, sample = (row.stored.row[k] for k in ("step", "group", "sample"))
    return f"step {step}, group {group}, sample {sample}"


def by_step(
    graded: Sequence[GradedRow], labels: Sequence[str], how: Recomputed | None
) -> list[dict[str, Any]]:
    """For each step: rollouts, how many the graders do not agree on, and of each grader
    the mean reward and, with `how`, the number of rollouts that its advantages would
    have pushed another way, and the mean change of an advantage.
    """
    whole = [each for each in graded if each.grades]
    # rows of 0.1's expert iteration name no step: they lie in order, and are one
    if all(type(each.stored.row["step"]) is int for each in whole):
        whole.sort(key=lambda each: each.stored.row["step"])
    found = []
    for step, group in groupby(whole, key=lambda each: each.stored.row["step"]):
        rows = sorted(
            group, key=lambda e: (e.stored.row.get("group") or 0, e.stored.number)
        )
        entry: dict[str, Any] = {"step": step, "n": len(rows)}
        entry["differ"] = sum(map(differ, rows))
        stored: list[Row] = [each.stored.row for each in rows]  # type: ignore[misc]
        size = _size(stored)
        if how and size:
            again = how(how.changed(stored, _rewards(stored, how.reward)), size)
            entry["check"] = max(
                abs(new - float(row["advantage"] or 0))
                for new, row in zip(again, stored, strict=True)
            )
        for label in labels:
            values = [each.grades[label].score.reward for each in rows]
            entry[label] = {"mean": sum(values) / len(values)}
            if how and size:
                new = how(how.changed(stored, values), size)
                old = [float(row["advantage"] or 0) for row in stored]
                pairs = list(zip(old, new, strict=True))
                entry[label]["turned"] = sum(_way(a) != _way(b) for a, b in pairs)
                entry[label]["change"] = sum(abs(a - b) for a, b in pairs) / len(pairs)
        found.append(entry)
    return found


def differ(row: GradedRow) -> bool:
    """Whether the graders do not agree on a row."""
    return len({graded.score.reward for graded in row.grades.values()}) > 1


def summary(
    record: Record,
    graded: Sequence[GradedRow],
    labels: Sequence[str],
    how: Recomputed | None,
    why_not: str,
) -> dict[str, Any]:
    """What a whole run's rollouts come to under other graders."""
    steps = by_step(graded, labels, how)
    checks = [step["check"] for step in steps if "check" in step]
    return {
        "run": str(record.folder),
        "rollouts": len(graded),
        "problems": [each.stored.problem for each in graded if each.stored.problem],
        "differ": sum(step["differ"] for step in steps),
        "steps": steps,
        # of the advantages computed again from the stored rewards to those stored
        "check": max(checks) if checks else None,
        "no_advantages": why_not,
        "disagreements": [
            {
                "step": each.stored.row["step"],
                "group": each.stored.row["group"],
                "sample": each.stored.row["sample"],
                "truth": each.stored.row["truth"],
                "response": each.stored.row["response"],
                **{
                    label: f"{score.reward:g} ({score.explanation or score.status})"
                    for label, (score, _) in each.grades.items()
                },
            }
            for each in graded
            if each.grades and differ(each)
        ],
    }


def _rewards(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row["rewards"][name]["reward"] or 0) for row in rows]


def _size(rows: Sequence[Row]) -> int:
    """Completions of a group, where all groups are whole; else 0."""
    sizes = {
        len(list(group)) for _, group in groupby(rows, lambda row: row.get("group"))
    }
    return sizes.pop() if len(sizes) == 1 else 0


def _way(advantage: float) -> int:
    return (advantage > RIGHT) - (advantage < -RIGHT)
