"""Two evals of the same questions: what was mended, what was broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignkit.errors import InputError
from alignkit.records import Eval
from alignkit.report.traits import Trait, traits
from alignkit.run.rows import Row

if TYPE_CHECKING:
    from alignkit.report.stats import Difference

Pair = tuple[Row, Row]


@dataclass(frozen=True)
class Versus:
    """Questions by what became of them, with the first sample of each side, and the
    paired difference of the means over all samples.
    """

    fixed: list[Pair]
    broken: list[Pair]
    still_wrong: list[Pair]
    still_right: list[Pair]
    difference: Difference
    alone: int  # questions that one side alone has
    traits: list[Trait]  # of the first samples of all common questions


def versus(base: Eval, other: Eval) -> Versus:
    """Compare two evals question by question; right is a full reward.

    Raises:
        InputError: they measure other things, or have no common question.
    """
    import numpy as np

    from alignkit.report import stats

    if base.name != other.name:
        raise InputError(f"{base.name} and {other.name} ask other questions")
    sides = [_by_question(each) for each in (base, other)]
    common = [name for name in sides[0] if name in sides[1]]
    if not common:
        raise InputError(f"{base.folder} and {other.folder} have no common question")
    pairs = [(sides[0][name][0], sides[1][name][0]) for name in common]
    right = [tuple(row["reward"] == 1 for row in pair) for pair in pairs]

    def those(*wanted: bool) -> list[Pair]:
        return [pair for pair, is_ in zip(pairs, right, strict=True) if is_ == wanted]

    means = [np.array([[_mean(side[name]) for name in common]]) for side in sides]
    return Versus(
        fixed=those(False, True),
        broken=those(True, False),
        still_wrong=those(False, False),
        still_right=those(True, True),
        difference=stats.compare(*means),
        alone=len(sides[0].keys() ^ sides[1].keys()),
        traits=traits([a for a, _ in pairs], [b for _, b in pairs]),
    )


def _by_question(each: Eval) -> dict[str, list[Row]]:
    """The scored samples of each question."""
    questions: dict[str, list[Row]] = {}
    for row in each.samples():
        if isinstance(row["reward"], int | float):
            questions.setdefault(str(row["id"]), []).append(row)
    return questions


def _mean(rows: list[Row]) -> float:
    return sum(float(row["reward"] or 0) for row in rows) / len(rows)
