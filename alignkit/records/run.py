"""The record of a run: read as far as it can be, while the run goes on too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.recipe import tree, yaml
from alignkit.records.rollouts import Rollouts, read_rollouts
from alignkit.run import Run, read_rows
from alignkit.run.files import read_json
from alignkit.run.rows import Row


@dataclass(frozen=True)
class Eval:
    """One eval of a run: `evals/<name>@<step>/`."""

    name: str
    step: int
    folder: Path
    summary: Mapping[str, Any]

    def samples(self) -> Iterator[Row]:
        """The rows of samples.jsonl; none where the file is missing."""
        path = self.folder / "samples.jsonl"
        return read_rows(path) if path.is_file() else iter(())


@dataclass(frozen=True)
class Record:
    """One training run, or one stage of a pipeline. `unread` says which of its files
    could not be read, and why.
    """

    label: str  # the run's name; of a sweep or pipeline, which job or stage it is
    folder: Path
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    unread: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The recipe's method."""
        return str(self.recipe.get("method"))

    def setting(self, key: str) -> Any:
        """What was in force under a dotted recipe key, else what the recipe states."""
        effective = self.manifest.get("effective")
        if isinstance(effective, dict) and key in effective:
            return effective[key]
        value: Any = self.recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl that have a step."""
        try:
            rows = Run(self.folder, dict(self.manifest)).metrics()
        except (InputError, OSError) as error:
            self.unread.append(str(error))
            return []
        return [row for row in rows if isinstance(row.get("step"), int)]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was logged; a value that is no
        number is NaN.
        """
        rows = [row for row in self.metrics if name in row]
        values = [row[name] for row in rows]
        return [row["step"] for row in rows], [
            float(value) if _is_number(value) else float("nan") for value in values
        ]

    @cached_property
    def rollouts(self) -> Rollouts:
        """What was generated and trained on."""
        return read_rollouts(self.folder, self.unread)

    @cached_property
    def evals(self) -> list[Eval]:
        """The finished evals, by name and step."""
        evals = []
        for path in sorted(self.folder.glob("evals/*@*/summary.json")):
            name, _, step = path.parent.name.rpartition("@")
            try:
                summary = read_json(path)
                evals.append(Eval(name, int(step), path.parent, summary))
            except (InputError, ValueError) as error:
                self.unread.append(f"{path}: {error}")
        return sorted(evals, key=lambda each: (each.name, each.step))


def read(folder: Path, label: str = "") -> list[Record]:
    """The record of a run; of a pipeline those of its stages, of a sweep those of its
    jobs that have begun, in order.

    Raises:
        InputError: it is no run folder, or its recipe cannot be read.
    """
    if (folder / "sweep.json").is_file():
        homes = sorted(path.parent for path in folder.glob("runs/*/manifest.json"))
        return [record for home in homes for record in read(home, home.name)]
    run = Run.open(folder)
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise InputError(f"{folder} has no recipe.yaml: it is no run, or a damaged one")
    twice: list[str] = []
    recipe = tree.plain(yaml.read(path, "recipe", twice))
    if twice or not isinstance(recipe, dict):
        raise InputError(*(twice or [f"{path} is no map of recipe keys"]))
    stages = recipe.get("stages")
    if recipe.get("method") == "pipeline" and isinstance(stages, dict):
        records = []
        for name in map(str, stages):
            home = folder / "stages" / name
            if (home / "manifest.json").is_file():
                records += read(home, f"{label}/{name}".strip("/"))
        return records
    name = label or str(run.manifest.get("name", folder.name))
    return [Record(name, folder, recipe, run.manifest)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
