"""Runs in Python, as the commands and the page read them: data frames where pandas is
installed, lists of rows elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit import checks, records
from alignkit.records import Eval, Record, browse
from alignkit.run import find_runs


@dataclass(frozen=True)
class EvalTable:
    """One eval of a run: its summary, and its samples as a frame."""

    eval: Eval

    @property
    def summary(self) -> Mapping[str, Any]:
        """What summary.json holds: value, interval, n, provenance."""
        return self.eval.summary

    @property
    def samples(self) -> Any:
        """One row a sample."""
        return frame(self.eval.samples())


@dataclass(frozen=True)
class RunTable:
    """One training run, or one stage of a pipeline or job of a sweep."""

    record: Record

    @property
    def label(self) -> str:
        """The run's name; of a pipeline or sweep, which stage or job it is."""
        return self.record.label

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.record.folder

    @property
    def metrics(self) -> Any:
        """One row a logged step: docs/metrics.md has the names."""
        return frame(self.record.metrics)

    @property
    def rollouts(self) -> Any:
        """One row a response that was trained on, with its text."""
        return frame(browse.rows(self.record))

    @property
    def settings(self) -> Any:
        """One row a setting: requested, and in force."""
        requested, effective = (
            dict(self.record.manifest.get(key) or {})
            for key in ("requested", "effective")
        )
        return frame(
            {
                "setting": name,
                "requested": requested.get(name),
                "in force": effective.get(name),
            }
            for name in sorted(requested.keys() | effective.keys())
        )

    @property
    def evals(self) -> dict[str, EvalTable]:
        """The finished evals by `NAME@STEP`."""
        return {
            f"{each.name}@{each.step}": EvalTable(each) for each in self.record.evals
        }

    def check(self) -> checks.Report:
        """What `align check` says of it."""
        return checks.examine(self.record)


def runs(folder: str | Path = "runs") -> list[RunTable]:
    """Every run below a folder, oldest first; of a run, a pipeline or a sweep itself,
    its stages or jobs.

    Raises:
        InputError: a run whose recipe cannot be read.
    """
    root = Path(folder)
    homes = (
        [root]
        if (root / "manifest.json").is_file()
        else [r.folder for r in find_runs(root)]
    )
    return [RunTable(record) for home in homes for record in records.read(home)]


def compare(
    *folders: str | Path, metrics: Iterable[str] = (), force: bool = False
) -> Any:
    """What `align compare` says of runs or sweeps: one row a variant and metric.

    Raises:
        InputError: what cannot be compared, and why; see `align compare`.
    """
    from alignkit.report.collect import collect
    from alignkit.report.comparison import compare as compare_variants

    compared = compare_variants(
        collect([Path(f) for f in folders]), list(metrics), force=force
    )
    return frame(
        {
            "variant": row.label,
            "metric": metric,
            "value": result.value,
            "low": result.interval.low if result.interval else None,
            "high": result.interval.high if result.interval else None,
            "difference": result.difference.value if result.difference else None,
            "p": result.p_holm,
            "verdict": result.verdict,
        }
        for row in compared.rows
        for metric, result in row.results.items()
    )


def frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows as a pandas data frame where pandas is installed, else as a list."""
    listed = [dict(row) for row in rows]
    try:
        import pandas
    except ImportError:
        return listed
    return pandas.DataFrame(listed)
