"""What a person says of graded rows: a sample sheet, and how wrong it shows each grader
to be.

Rows are drawn from strata, one for each pattern of verdicts, so that disagreements,
which are few, are looked at as well as agreements, which are many.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.data.files import file_rows
from alignkit.errors import InputError, listing
from alignkit.grading.stored import Fields, GradedRow, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = ("right", "wrong", "unsure")
FULL = 1.0  # the reward of a verdict "right"
DRAWS = 20_000
LEVEL = 0.95
Pattern = tuple[bool, ...]


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval; no value where a stratum has no label yet, and
    nothing where it is a share of no rows.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Errors:
    """How wrong a grader is on the rows that a sheet was drawn from.

    precision: of the rows that it calls right, those that are. recall: of those that
    are right, the ones that it calls so. accuracy: of all rows. wrongly_right,
    wrongly_wrong: the shares of all rows that it calls right and are not, and the
    reverse.
    """

    precision: Estimate
    recall: Estimate
    accuracy: Estimate
    wrongly_right: Estimate
    wrongly_wrong: Estimate


def sheet_of(place: Path) -> Path:
    """Where the labels of a run or of a file of rows are kept."""
    if place.is_dir():
        return place / "labels.jsonl"
    return place.with_name(f"{place.name}.labels.jsonl")


def draw(
    graded: Sequence[GradedRow],
    rewards: Sequence[str],
    size: int,
    fields: Fields,
    place: Callable[[GradedRow], str],
) -> list[dict[str, Any]]:
    """A sheet of `size` rows without labels, half of them from the strata in which the
    graders disagree. The order is by hash: a larger sheet begins each stratum with the
    rows of a smaller one.

    Raises:
        InputError: `size` is below the number of strata.
    """
    strata: dict[Pattern, list[tuple[str, GradedRow]]] = {}
    for row in graded:
        if row.grades:
            verdicts = tuple(row.grades[r].score.reward >= FULL for r in rewards)
            strata.setdefault(verdicts, []).append((_id(row), row))
    sizes = _shares({pattern: len(rows) for pattern, rows in strata.items()}, size)
    drawn = [
        (key, pattern, row)
        for pattern, rows in strata.items()
        for key, row in sorted(rows, key=lambda each: each[0])[: sizes[pattern]]
    ]
    sheet = []
    for key, pattern, row in sorted(drawn, key=lambda each: each[0]):
        response, truth, prompt = values_of(row.stored.row, fields)
        sheet.append(
            {
                "label": None,
                "time": None,
                "id": key,
                "place": place(row),
                "prompt": prompt,
                "truth": truth,
                "response": response,
                "verdicts": dict(zip(rewards, pattern, strict=True)),
                "population": len(strata[pattern]),
            }
        )
    return sheet


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a sheet, which a person may have edited.

    Raises:
        InputError: a row that is none, or a label that is none, by its line.
    """
    rows = []
    for _, where, row, problem in file_rows(path):
        if problem:
            raise InputError(problem)
        verdicts, population = row.get("verdicts"), row.get("population")
        if (
            not isinstance(row.get("id"), str)
            or not isinstance(verdicts, dict)
            or not all(isinstance(verdict, bool) for verdict in verdicts.values())
            or type(population) is not int
        ):
            raise InputError(f"{where} is no row of a sheet of labels")
        if row.get("label") not in (None, *LABELS):
            raise InputError(
                f"{where}: a label is {listing([*LABELS, 'null'])}, given"
                f" {row['label']!r:.40}"
            )
        rows.append(row)
    return rows


def taken_up(path: Path, drawn: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The drawn sheet with the labels that the file holds already; rows that only the
    file has (it was larger) stay.

    Raises:
        InputError: the file was drawn from other rows, or for other verdicts.
    """
    before = {row["id"]: row for row in read(path)}
    known = {_stratum(row): row["population"] for row in drawn}
    for row in before.values():
        if known.get(_stratum(row)) != row["population"]:
            raise InputError(
                f"{path} holds labels of other rows or of other verdicts than these"
                f" rewards give ({listing(sorted(row['verdicts']))} there); move it"
                " away to label anew"
            )
    labels = {key: (row["label"], row.get("time")) for key, row in before.items()}
    sheet = [dict(row) for row in drawn]
    for row in sheet:
        row["label"], row["time"] = labels.pop(row["id"], (None, None))
    return [*sheet, *(before[key] for key in labels)]


def errors(sheet: Sequence[Mapping[str, Any]], reward: str) -> Errors:
    """How wrong a grader is, estimated from the labels.

    In a stratum of which n rows have a label, k of them "right", the share of right
    ones among the others has the posterior Beta(k + 1/2, n - k + 1/2) of Jeffreys'
    prior (Brown, Cai and DasGupta 2001); the strata, weighted by their sizes, are
    combined by drawing from it. "unsure" is no label.
    """
    import numpy as np

    random = np.random.default_rng(0)
    shares: list[tuple[bool, int, float | None, NDArray[Any]]] = []
    by_stratum = sorted(sheet, key=lambda row: str(_stratum(row)))
    for _, rows in groupby(by_stratum, key=_stratum):
        each = list(rows)
        count = Counter(row["label"] for row in each)
        n, k = count["right"] + count["wrong"], count["right"]
        size = max(each[0]["population"], n)
        rest = random.beta(k + 0.5, n - k + 0.5, DRAWS)
        drawn = (k + random.binomial(size - n, rest)) / size
        known = k / n if n else None
        shares.append((each[0]["verdicts"][reward], size, known, drawn))
    points = None
    if all(known is not None for _, _, known, _ in shares):
        points = _rates([(yes, size, known) for yes, size, known, _ in shares])
    spreads = _rates([(yes, size, drawn) for yes, size, _, drawn in shares])
    exact = points or [None] * len(spreads)
    return Errors(*map(_estimate, exact, spreads))


def _estimate(exact: Any, spread: NDArray[Any]) -> Estimate:
    import numpy as np

    if np.isnan(spread).all():
        return Estimate(None, None, None)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(spread, [tail, 100 - tail])
    value = None if exact is None or np.isnan(exact) else float(exact)
    return Estimate(value, float(low), float(high))


def labelled(sheet: Sequence[Mapping[str, Any]]) -> int:
    """The rows with a label that says something."""
    return sum(row["label"] in ("right", "wrong") for row in sheet)


def _rates(strata: Sequence[tuple[bool, int, Any]]) -> list[Any]:
    """The fields of `Errors` of strata: verdict, rows, share of right ones."""
    import numpy as np

    total = sum(size for _, size, _ in strata)
    hit = sum((size * share for yes, size, share in strata if yes), np.zeros(()))
    miss = sum((size * share for yes, size, share in strata if not yes), np.zeros(()))
    said = sum(size for yes, size, _ in strata if yes)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.divide(hit, said)
        recall = np.divide(hit, hit + miss)
    false = said - hit
    return [precision, recall, 1 - (false + miss) / total, false / total, miss / total]


def _shares(strata: Mapping[Pattern, int], size: int) -> dict[Pattern, int]:
    """How many rows of each stratum: half of all from those that disagree, in equal
    parts as far as they go.
    """
    if size < len(strata):
        raise InputError(
            f"--label {size}: the verdicts make {len(strata)} strata, of each of which"
            " a row is needed"
        )
    kinds = [
        [p for p in strata if (len(set(p)) > 1) is split] for split in (True, False)
    ]
    taken = dict.fromkeys(strata, 1)
    size = min(size, sum(strata.values())) - len(strata)
    while size:
        for kind in kinds:
            room = [pattern for pattern in kind if taken[pattern] < strata[pattern]]
            if room and size:
                taken[min(room, key=lambda pattern: taken[pattern])] += 1
                size -= 1
    return taken


def _stratum(row: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted(row["verdicts"].items()))


def _id(row: GradedRow) -> str:
    content = json.dumps([row.stored.number, row.stored.row], default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
