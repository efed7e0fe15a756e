"""Read what a comparison needs of a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from alignkit.errors import InputError, listing
from alignkit.recipe import tree, yaml
from alignkit.run import Run, read_rows
from alignkit.run.files import read_json

NOT_METRICS = frozenset({"step", "time", "seconds", "tokens"})
_NUMBER = (int, float, type(None))
# The types of a summary's fields.
_KINDS: dict[str, Any] = {
    "n": int,
    "metric": str,
    "metrics": dict,
    "provenance": dict,
    "low": _NUMBER,
    "high": _NUMBER,
}


@dataclass(frozen=True)
class EvalResult:
    """One finished eval of a run: `evals/<eval>@<step>/`."""

    name: str
    step: int
    folder: Path
    summary: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of the summary by its metric's name."""
        main = {self.summary["metric"]: self.summary["value"]}
        numbers = main | self.summary.get("metrics", {})
        return {
            str(name): float(value)
            for name, value in numbers.items()
            if is_number(value)
        }

    @cached_property
    def samples(self) -> dict[str, list[tuple[Any, Mapping[str, Any]]]]:
        """The (reward, parts) of every sample by question.

        Raises:
            InputError: when samples.jsonl is missing, damaged or incomplete.
        """
        path = self.folder / "samples.jsonl"
        if not path.is_file():
            raise InputError(f"{path} is missing")
        samples: dict[str, list[tuple[Any, Mapping[str, Any]]]] = {}
        for row in read_rows(path):
            samples.setdefault(str(row["id"]), []).append((row["reward"], row["parts"]))
        if len(samples) < self.summary["n"]:
            raise InputError(
                f"{path} holds {len(samples)} questions, the summary counts"
                f" {self.summary['n']}"
            )
        return samples

    def scores(self, metric: str) -> dict[str, float] | None:
        """Each question's mean over its samples, where the metric is such a mean; else
        None.

        Questions with a sample that is not scored yet (an open judgement) are left out.
        """
        main = metric == self.summary["metric"]
        values: dict[str, list[Any]] = {}
        for question, samples in self.samples.items():
            if all(is_number(reward) for reward, _ in samples):
                values[question] = [
                    reward if main else parts.get(metric) for reward, parts in samples
                ]
        each = [value for group in values.values() for value in group]
        if not each or not all(map(is_number, each)):
            return None
        if not math.isclose(
            math.fsum(each) / len(each),
            self.metrics[metric],
            rel_tol=1e-3,
            abs_tol=1e-3,
        ):
            return None
        return {
            question: math.fsum(group) / len(group)
            for question, group in values.items()
        }


@dataclass(frozen=True)
class RunData:
    """What a comparison needs of one finished run."""

    folder: Path
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    evals: Sequence[EvalResult]

    @property
    def seed(self) -> Any:
        """The recipe's seed."""
        return self.recipe.get("seed")

    @cached_property
    def metrics(self) -> list[str]:
        """The names of all metrics that the run has: `eval/<eval>/<metric>` and what
        its rows hold.
        """
        names = {
            f"eval/{result.name}/{metric}"
            for result in self.evals
            for metric in result.metrics
        }
        names |= {
            name for row in self.rows for name, value in row.items() if is_number(value)
        } - NOT_METRICS
        return sorted(names)

    def last_eval(self, metric: str) -> EvalResult | None:
        """The last eval that gives `eval/<eval>/<metric>`."""
        results = [
            r
            for r in self.evals
            for name in r.metrics
            if f"eval/{r.name}/{name}" == metric
        ]
        return max(results, key=lambda result: result.step, default=None)

    def final(self, metric: str) -> float | None:
        """The last eval's value; of a training metric the mean over the last tenth of
        its logged values.

        NaN where one of these is no finite number: the run diverged, which the values
        before would hide.
        """
        result = self.last_eval(metric)
        if result is not None:
            return result.metrics[metric.split("/", 2)[2]]
        values = [
            row[metric] for row in self.rows if isinstance(row.get(metric), int | float)
        ]
        tail = values[-max(1, len(values) // 10) :]
        if not all(map(math.isfinite, tail)):
            return math.nan
        return math.fsum(tail) / len(tail) if tail else None


def read_run(folder: Path, *, collapsed: bool = False) -> RunData:
    """Read one run folder; a `collapsed` run was stopped on purpose, so it need not be
    finished.

    Raises:
        InputError: when it is unfinished, damaged or no run folder, with the reason.
    """
    run = Run.open(folder)
    if run.status != "done" and not collapsed:
        raise InputError(f"{folder} is not finished: its status is '{run.status}'")
    if not (folder / "recipe.yaml").is_file():
        raise InputError(f"{folder} is damaged: it has no recipe.yaml")
    twice: list[str] = []
    recipe = tree.plain(yaml.read(folder / "recipe.yaml", "recipe", twice))
    if twice:
        raise InputError(*twice)
    if recipe.get("method") == "pipeline":
        if not isinstance(recipe.get("stages"), dict) or not recipe["stages"]:
            raise InputError(
                f"{folder} is damaged: its recipe.yaml is of a pipeline without stages"
            )
        # What a pipeline made is the model of its last stage.
        folder = folder / "stages" / list(recipe["stages"])[-1]
    evals = [
        read_eval(summary.parent)
        for summary in sorted(folder.glob("evals/*@*/summary.json"))
    ]
    for name in {result.name for result in evals}:
        last = max(
            (result for result in evals if result.name == name),
            key=lambda result: result.step,
        )
        # read now, so that a damaged run is known as such from the start
        _ = last.samples
    rows = Run.open(folder).metrics()
    if not all(isinstance(row.get("step"), int) for row in rows):
        raise InputError(f"{folder / 'metrics.jsonl'} is damaged: a row has no step")
    return RunData(run.folder, recipe, run.manifest, rows, evals)


def read_eval(folder: Path) -> EvalResult:
    """One eval.

    Raises:
        InputError: it is damaged, or nothing in it is scored.
    """
    path = folder / "summary.json"
    try:
        summary = read_json(path)
        name, step = folder.name.rsplit("@", 1)
        lacking = [
            key for key in ("n", "metric", "value", "provenance") if key not in summary
        ]
        if lacking:
            raise ValueError(f"it lacks {listing(lacking)}")
        wrong = [
            key
            for key, kind in _KINDS.items()
            if key in summary and not isinstance(summary[key], kind)
        ]
        if wrong:
            raise ValueError(f"{listing(wrong)} is of a wrong type")
        if summary["value"] is None:
            raise ValueError("nothing in it is scored; run the eval again")
        if not is_number(summary["value"]):
            raise ValueError(f"its value is {summary['value']!r}, no finite number")
        return EvalResult(name, int(step), folder, summary)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def is_number(value: object) -> TypeGuard[float]:
    """Finite, and no truth value."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
