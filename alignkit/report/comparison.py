"""Compare variants: refuse what was measured differently, test what was measured alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alignkit.errors import InputError, listing, nearest
from alignkit.report import comparability
from alignkit.report.collect import Collection
from alignkit.report.labelled import gains
from alignkit.report.proofs import waived
from alignkit.report.results import Result, correct, results_of
from alignkit.report.runs import RunData
from alignkit.run.manifest import told


@dataclass(frozen=True)
class Row:
    """One variant."""

    label: str
    base: bool
    seeds: Sequence[Any]
    differs: Mapping[str, Any]
    results: Mapping[str, Result]  # empty where every run collapsed
    folders: Sequence[str]
    collapsed: Sequence[Any] = ()  # seeds of runs that were stopped for it


@dataclass(frozen=True)
class Comparison:
    """The whole comparison: what tables print and JSON holds. `forced` says what was
    measured differently.
    """

    columns: Sequence[str]
    metrics: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    forced: Sequence[str] = ()
    left_out: Sequence[str] = field(default_factory=tuple)

    @property
    def base(self) -> str:
        """The label of the variant that the others are compared with."""
        return next(row.label for row in self.rows if row.base)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(
    collection: Collection, metrics: Sequence[str] = (), *, force: bool = False
) -> Comparison:
    """Compare every variant with the first, under each metric, on the questions that
    all runs answered.

    Without `metrics`: what the sweep names, else the main metric of every eval, else
    the training reward or loss.

    Raises:
        InputError: an unknown metric; runs that lack one; evals measured differently
            (unless `force`); no common questions.
    """
    runs = collection.runs
    chosen = list(dict.fromkeys(metrics)) or _default_metrics(collection)
    _check_known(chosen, runs)
    different = list(
        dict.fromkeys(
            problem
            for metric in chosen
            for problem in comparability.measured_differently(metric, runs)
        )
    )
    if different and not force:
        raise InputError(
            *different,
            "such numbers cannot be compared; --force prints them, and marks the table",
        )
    notes: list[str] = []
    finished = [variant for variant in collection.variants if variant.runs]
    columns = {metric: results_of(metric, finished, notes) for metric in chosen}
    correct(columns)
    results: dict[str, dict[str, Result]] = {
        variant.label: {metric: columns[metric][place] for metric in chosen}
        for place, variant in enumerate(finished)
    }
    rows = [
        Row(
            variant.label,
            variant is collection.variants[0],
            [run.seed for run in variant.runs],
            variant.differs,
            results.get(variant.label, {}),
            [str(run.folder) for run in (*variant.runs, *variant.collapsed)],
            [run.seed for run in variant.collapsed],
        )
        for variant in collection.variants
    ]
    notes = [
        *collection.notes,
        *_waived(collection),
        *_lineage(collection),
        *_read_me(rows, chosen),
        *notes,
        *(note for m in chosen for note in gains(m, finished, columns[m])),
        *comparability.other_differences(runs),
    ]
    return Comparison(
        collection.columns, chosen, rows, notes, different, collection.left_out
    )


def _default_metrics(collection: Collection) -> list[str]:
    if collection.metric:
        return [collection.metric]
    known = {name for run in collection.runs for name in run.metrics}
    main = {
        f"eval/{result.name}/{result.summary['metric']}"
        for run in collection.runs
        for result in run.evals
    }
    training: list[str] = [m for m in ("train/reward", "train/loss") if m in known]
    return sorted(main) or training[:1]


def _check_known(metrics: Sequence[str], runs: Sequence[RunData]) -> None:
    known = sorted({name for run in runs for name in run.metrics})
    if not metrics:
        raise InputError(
            f"these runs have no metrics: {listing([str(run.folder) for run in runs])}"
        )
    problems = []
    for metric in metrics:
        if metric not in known:
            hint = nearest(metric, known)
            if "known" not in hint:
                hint += f" known: {listing(known)}"
            problems.append(f"unknown metric '{metric}'; {hint}")
            continue
        lacking = [str(run.folder) for run in runs if run.final(metric) is None]
        if lacking:
            problems.append(f"{metric} is not in {listing(lacking)}")
        lost = [str(run.folder) for run in runs if math.isnan(run.final(metric) or 0.0)]
        if lost:
            problems.append(
                f"{metric} is no finite number at the end of {listing(lost)}; leave out"
                " what diverged"
            )
    if problems:
        raise InputError(*problems)


def _read_me(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """How to read the table: what its intervals and tests cover."""
    results = [result for row in rows for result in row.results.values()]
    covers = sorted({result.interval.covers for result in results if result.interval})
    notes = []
    if covers:
        notes.append(
            f"Brackets are 95 % intervals; of a variant's value over {listing(covers)}."
        )
    differences = [result.difference for result in results if result.difference]
    for test, scope in dict.fromkeys(
        (d.test, d.covers) for d in differences if d.covers
    ):
        notes.append(
            f"Differences to the base: {test}, over {scope}; p corrected by Holm."
        )
        if scope == "questions" and any(len(row.seeds) < 2 for row in rows):
            notes.append(
                "With one seed this is about these very models: another seed may come"
                " out otherwise."
            )
    if any(result.verdict == "untested" for result in results):
        notes.append("Untested: such a metric needs two seeds or more of each variant.")
    if any(result.smallest_effect for result in results):
        notes.append(
            "Detectable: the smallest true difference that such a comparison finds in"
            " 80 of 100 cases."
        )
    training = [metric for metric in metrics if not metric.startswith("eval/")]
    if training:
        notes.append(
            f"{listing(training)}: the mean over the last tenth of the logged values."
        )
    return notes


def _lineage(collection: Collection) -> list[str]:
    """Of runs that begin with another's work: which."""
    return [
        f"{variant.label} (seed {run.seed}): {told(run.manifest['lineage'])}."
        for variant in collection.variants
        for run in variant.runs
        if "lineage" in run.manifest
    ]


def _waived(collection: Collection) -> list[str]:
    """The proofs that runs went without."""
    return [
        f"{variant.label} went without the proof {name}: {reason}"
        for variant in collection.variants
        for name, reason in {
            name: reason
            for run in variant.runs
            for name, reason in waived(run.folder).items()
        }.items()
    ]
