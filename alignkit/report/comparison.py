"""Compare variants: refuse what was measured differently, test what was measured alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, listing, nearest
from alignkit.provenance import OLD, differences, is_old, measured_by
from alignkit.report import stats
from alignkit.report.collect import Collection, Variant
from alignkit.report.runs import RunData

if TYPE_CHECKING:
    from alignkit.report.stats import Difference, Interval, Values

# what must agree between evals set side by side
MEASURED_BY = ("prompt", "grader", "data", "sampling", "judge")
# What may differ all the same: another draw by the same settings, the same content (by
# its hash) in another place.
_MAY_DIFFER = {"sampling": ("seed",), "data": ("path",), "prompt": ("name",)}


@dataclass(frozen=True)
class Result:
    """One variant under one metric."""

    value: float
    interval: Interval | None
    by_seed: Mapping[str, float]
    questions: int | None  # None for a metric that has no questions
    difference: Difference | None = None  # to the base; None for the base itself
    p_holm: float | None = None
    verdict: str = ""
    smallest_effect: float | None = None


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
    different = [
        problem for metric in chosen for problem in _measured_differently(metric, runs)
    ]
    different = list(dict.fromkeys(different))
    if different and not force:
        raise InputError(
            *different,
            "such numbers cannot be compared; --force prints them, and marks the table",
        )
    notes: list[str] = []
    finished = [variant for variant in collection.variants if variant.runs]
    results = {metric: _results(metric, finished, notes) for metric in chosen}
    _correct(results)
    places = {variant.label: number for number, variant in enumerate(finished)}
    rows = [
        Row(
            variant.label,
            variant is collection.variants[0],
            [run.seed for run in variant.runs],
            variant.differs,
            {
                metric: results[metric][places[variant.label]]
                for metric in chosen
                if variant.runs
            },
            [str(run.folder) for run in (*variant.runs, *variant.collapsed)],
            [run.seed for run in variant.collapsed],
        )
        for variant in collection.variants
    ]
    notes = [
        *collection.notes,
        *_read_me(rows, chosen),
        *notes,
        *_other_differences(runs),
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
    training: list[str] = [
        name for name in ("train/reward", "train/loss") if name in known
    ]
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
            problems.append(
                f"unknown metric '{metric}'; {hint}"
                + ("" if "known" in hint else f" known: {listing(known)}")
            )
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


def _measured_differently(metric: str, runs: Sequence[RunData]) -> list[str]:
    """One problem per field of the provenance in which the runs' evals differ."""
    problems = []
    if (
        metric == "train/reward"
        and len({json.dumps(_rewards(run), sort_keys=True) for run in runs}) > 1
    ):
        problems.append(
            "train/reward was measured differently in its grader: the runs have other"
            " rewards or weights"
        )
    elif metric == "train/reward":
        problems += _other_rewards(runs)
    evals = [
        (run.folder.name, result)
        for run in runs
        if (result := run.last_eval(metric)) is not None
    ]
    for name in MEASURED_BY:
        values = [
            _measured_by(name, result.summary["provenance"]) for _, result in evals
        ]
        unlike = {
            key
            for value in values
            for key in value
            if any(value[key] != v.get(key) for v in values)
        }
        # then nothing else can be compared
        unlike = unlike & {"identity"} or unlike
        said: dict[str, list[str]] = {}
        for (folder, _), value in zip(evals, values, strict=True):
            text = ", ".join(
                f"{key} {value.get(key)}".strip() for key in sorted(unlike)
            )
            said.setdefault(text, []).append(folder)
        if unlike:
            each = "; ".join(
                f"{text} in {listing(folders, limit=3)}"
                for text, folders in said.items()
            )
            problems.append(
                f"eval '{evals[0][1].name}' was measured differently in its {name}:"
                f" {each}"
            )
    return problems


def _other_rewards(runs: Sequence[RunData]) -> Iterator[str]:
    """In what the code of the rewards differs from the first run's."""
    first, *others = runs
    for run in others:
        both = f"{first.folder.name} and {run.folder.name}"
        said = differences(_code(first, "reward"), _code(run, "reward"))
        if is_old(first.manifest) != is_old(run.manifest):
            said = iter([f"one is of {OLD}"])
        for text in said:
            yield (
                f"train/reward was measured differently in its grader by {both}: {text}"
            )


def _code(run: RunData, kind: str = "") -> dict[str, Any]:
    """The code of a run's plugins, by plugin and file; of those of one kind."""
    parts = run.manifest.get("identity", {}).get("parts", {})
    return {
        name: part
        for name, part in parts.items()
        if isinstance(part, dict) and name.rpartition(", ")[2].startswith(kind)
    }


def _rewards(run: RunData) -> Any:
    """The rewards that the logged reward is made of; a pipeline logs those of its last
    stage.
    """
    stages = list(run.recipe.get("stages") or {})
    return (run.recipe["stages"][stages[-1]] if stages else run.recipe).get("rewards")


def _measured_by(name: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    """A field of the provenance as comparable texts; how many samples a question has
    belongs to the sampling.
    """
    value = provenance.get(name)
    parts = measured_by(value) if isinstance(value, dict) else {"": value}
    if name == "sampling":
        parts = {**parts, "samples": provenance.get("samples")}
    kept = {
        key: part for key, part in parts.items() if key not in _MAY_DIFFER.get(name, ())
    }
    return {
        key: json.dumps(part, sort_keys=True, default=str) for key, part in kept.items()
    }


def _results(
    metric: str, variants: Sequence[Variant], notes: list[str]
) -> list[Result]:
    tables = _tables(metric, variants, notes)
    results = []
    for variant, values in zip(variants, tables, strict=True):
        questions = values.shape[1] if values.ndim == 2 else None
        by_seed = values.mean(axis=1) if values.ndim == 2 else values
        interval = (
            stats.mean_interval(values) if questions else stats.seeds_interval(values)
        )
        difference = None
        if values is not tables[0]:
            difference = (
                stats.compare(tables[0], values)
                if questions
                else stats.compare_seeds(tables[0], values)
            )
        seeds = {
            str(run.seed): float(value)
            for run, value in zip(variant.runs, by_seed, strict=True)
        }
        results.append(
            Result(float(values.mean()), interval, seeds, questions, difference)
        )
    return results


def _tables(metric: str, variants: Sequence[Variant], notes: list[str]) -> list[Values]:
    """Per variant its scores: (S, Q) on the common questions, or (S,) where the metric
    is no mean over questions.
    """
    import numpy as np

    evals = [[run.last_eval(metric) for run in variant.runs] for variant in variants]
    name = metric.rsplit("/", 1)[-1]
    scores = [
        [None if result is None else result.scores(name) for result in group]
        for group in evals
    ]
    if any(table is None for group in scores for table in group):
        return [
            np.array([run.final(metric) for run in variant.runs], dtype=float)
            for variant in variants
        ]
    asked = [set(table) for group in scores for table in group if table is not None]
    common = sorted(set.intersection(*asked))
    if not common:
        raise InputError(
            f"{metric}: the runs have no common questions; evaluate them on the same"
            " data and limit"
        )
    if len(common) < max(map(len, asked)):
        notes.append(
            f"{metric}: over the {len(common)} questions that all runs answered, of"
            f" {max(map(len, asked))}."
        )
    steps = {result.step for group in evals for result in group if result is not None}
    if len(steps) > 1:
        notes.append(
            f"{metric}: the last evals stand at different steps, {min(steps)} to"
            f" {max(steps)}."
        )
    return [
        np.array([[table[q] for q in common] for table in group if table is not None])
        for group in scores
    ]


def _correct(results: dict[str, list[Result]]) -> None:
    """Holm over every comparison of the table, then the verdicts."""
    places = [
        (metric, i)
        for metric, column in results.items()
        for i, result in enumerate(column)
        if result.difference
    ]
    differences = [results[metric][i].difference for metric, i in places]
    corrected = stats.holm(
        [difference.p for difference in differences if difference is not None]
    )
    for (metric, i), difference, p in zip(places, differences, corrected, strict=True):
        if difference is not None:
            results[metric][i] = replace(
                results[metric][i],
                p_holm=p,
                verdict=stats.verdict(difference.value, p),
                smallest_effect=stats.smallest_effect(difference, len(places)),
            )


def _read_me(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """How to read the table: what its intervals and tests cover."""
    results = [result for row in rows for result in row.results.values()]
    covers = sorted({result.interval.covers for result in results if result.interval})
    notes = (
        [f"Brackets are 95 % intervals; of a variant's value over {listing(covers)}."]
        if covers
        else []
    )
    tested: dict[tuple[str, str], None] = {}
    for result in results:
        if result.difference and result.difference.covers:
            tested[result.difference.test, result.difference.covers] = None
    for test, scope in tested:
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


def _other_differences(runs: Sequence[RunData]) -> list[str]:
    """What differs between the runs and is no setting of the recipe: versions, code,
    hardware, data of one seed.
    """
    notes = []
    for key in ("versions", "data", "git", "hardware"):
        values: dict[Any, set[str]] = {}
        for run in runs:
            text = json.dumps(run.manifest.get(key), sort_keys=True, default=str)
            values.setdefault(run.seed if key == "data" else None, set()).add(text)
        if any(len(texts) > 1 for texts in values.values()):
            notes.append(
                f"The runs differ in their {key} too; see each manifest.json, or `align"
                " diff RUN RUN`."
            )
    first, *others = [_code(run) for run in runs]
    changed = dict.fromkeys(
        text
        for code in others
        for text in differences(first, {**first, **code})
        if text.partition(":")[0] in first
    )
    notes += [f"The runs differ in their code too: {text}." for text in changed]
    return notes
