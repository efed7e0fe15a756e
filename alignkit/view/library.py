"""What the page asks: runs, a stage, a step, a question, two evals, a sweep. Every
answer is plain data; every sentence in it is computed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignkit import checks, records
from alignkit.errors import InputError
from alignkit.proofs.record import read_proofs
from alignkit.recipe import ABSENT, diff_resolved
from alignkit.records import Record, browse
from alignkit.report import sentences
from alignkit.report.versus import Pair, versus
from alignkit.run import Run, find_runs
from alignkit.run.files import read_json
from alignkit.view.folders import Folders
from alignkit.view.index import Index

QUESTION_ROWS = 2000
PAIRS = 500  # of each kind that a comparison sends
SAMPLES = 1000


class Library(Folders):
    """The runs below a folder, or one run. Only what lies in the folder is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._indices: dict[Path, Index] = {}
        self._known: dict[str, tuple[Any, list[Record]]] = {}
        self._reading = threading.Lock()

    # -- what the page asks, by name -------------------------------------------------------

    def answer(self, name: str, asked: dict[str, str]) -> Any:
        """The answer to `api/<name>?<asked>`.

        Raises:
            InputError: no such question, or of something that is not there.
        """
        questions: dict[str, Callable[..., Any]] = {
            "runs": self.runs,
            "run": self.run,
            "stage": self.stage,
            "checks": self.checks,
            "says": self.says,
            "step": self.step,
            "next": self.next,
            "question": self.question,
            "eval": self.eval,
            "versus": self.versus,
            "differences": self.differences,
            "sweep": self.sweep,
            "stamp": self.stamp,
        }
        if name not in questions:
            raise InputError(f"there is no api/{name}")
        try:
            return questions[name](**asked)
        except TypeError as error:
            raise InputError(f"api/{name}: {error}") from error

    def runs(self) -> dict[str, Any]:
        """The runs and sweeps, newest first."""
        if (self.root / "manifest.json").is_file():
            return {"root": self.root.name, "runs": [self._line(self.root)]}
        lines = [self._line(run.folder) for run in find_runs(self.root)]
        return {"root": self.root.name, "runs": lines[::-1]}

    def run(self, id: str) -> dict[str, Any]:
        """One run and its stages; of a sweep its jobs."""
        folder = self._folder(id)
        line = self._line(folder)
        read = records.read(folder)
        stages = [
            {"id": self._id(r.folder), "label": r.label, "method": r.method}
            for r in read
        ]
        recipe = folder / "recipe.yaml"
        diff = folder / "diff.yaml"
        return {
            **line,
            "stages": stages,
            "manifest": Run.open(folder).manifest,
            "recipe": _text_of(recipe),
            "diff": _text_of(diff),
            "log": _text_of(folder / "log.txt")[-20_000:],
        }

    def stage(self, id: str) -> dict[str, Any]:
        """Metrics, evals, settings, proofs and groups of one training run."""
        record = self._record(id)
        index = self._index(record.folder)
        names = sorted(
            {name for row in record.metrics for name in row}
            - {"step", "time", "seconds", "tokens"}
        )
        requested, effective = (
            record.manifest.get(key) for key in ("requested", "effective")
        )
        return {
            "id": id,
            "label": record.label,
            "method": record.method,
            "status": record.manifest.get("status"),
            "metrics": {name: list(record.series(name)) for name in names},
            "evals": [self._eval_line(each) for each in record.evals],
            "heat": index.heat(),
            "requested": requested if isinstance(requested, dict) else {},
            "effective": effective if isinstance(effective, dict) else {},
            "unproven": record.manifest.get("unproven", []),
            "proofs": _proofs(record),
            "unread": record.unread,
        }

    def checks(self, id: str) -> list[dict[str, Any]]:
        """What the checks say of a run or of its stages."""

        with self._reading:
            return [
                {**asdict(checks.examine(record)), "id": self._id(record.folder)}
                for record in self._records(id)
            ]

    def says(self, id: str) -> list[str]:
        """What changed, in sentences."""
        with self._reading:
            return sentences.of_run(self._records(id))

    def step(self, id: str, step: str) -> list[dict[str, Any]]:
        """The groups of a step, with every response."""
        rows = self._index(self._record(id).folder).step(_integer("step", step))
        groups: dict[Any, list[Any]] = {}
        for row in rows:
            groups.setdefault(row["group"] or 0, []).append(row)
        return [
            {"group": number, "question": browse.question_of(each[0]), "rows": each}
            for number, each in sorted(groups.items())
        ]

    def next(self, id: str, step: str, group: str, sample: str, wanted: str) -> Any:
        """[step, group, sample] of the next wrong row or dead group; None at the end."""
        place = tuple(_integer("place", each) for each in (step, group, sample))
        return self._index(self._record(id).folder).next(place, wanted)

    def question(self, id: str, text: str) -> list[dict[str, Any]]:
        """A question across the steps, and the commonest answers."""
        rows = self._index(self._record(id).folder).question(text, QUESTION_ROWS)
        groups: dict[tuple[int, int], list[Any]] = {}
        for row in rows:
            groups.setdefault((row["step"] or 0, row["group"] or 0), []).append(row)
        return [
            {
                "step": step,
                "group": number,
                "question": browse.question_of(each[0]),
                "right": sum(row["status"] == "ok" for row in each),
                "rows": len(each),
                "answers": browse.answers(browse.Group(step, number, each)),
            }
            for (step, number), each in sorted(groups.items())
        ]

    def eval(self, id: str, name: str) -> dict[str, Any]:
        """One eval, with its first samples."""
        each = browse.evaluation(self._record(id), name)
        samples = []
        for row in each.samples():
            samples.append(row)
            if len(samples) == SAMPLES:
                break
        return {**self._eval_line(each), "samples": samples}

    def versus(self, id: str, name: str, base: str, base_name: str) -> dict[str, Any]:
        """An eval against another of the same questions."""
        other = browse.evaluation(self._record(id), name)
        before = browse.evaluation(self._record(base), base_name)
        compared = versus(before, other)
        sides = {
            "fixed": compared.fixed,
            "broken": compared.broken,
            "still wrong": compared.still_wrong,
            "right in both": compared.still_right,
        }
        return {
            "base": self._eval_line(before),
            "other": self._eval_line(other),
            "counts": {side: len(pairs) for side, pairs in sides.items()},
            "pairs": {side: list(map(_pair, p[:PAIRS])) for side, p in sides.items()},
            "alone": compared.alone,
            "traits": compared.traits,
            "says": sentences.of_versus(before, other, compared),
        }

    def differences(self, id: str, other: str) -> list[dict[str, Any]]:
        """The settings in which two stages' recipes differ: key, here, there."""
        sides = [self._record(each).recipe for each in (id, other)]
        return [
            {"key": d.key} | {n: None if v is ABSENT else v for n, v in values.items()}
            for d in diff_resolved(*sides)
            for values in ({"here": d.a, "there": d.b},)
        ]

    def sweep(self, id: str) -> dict[str, Any]:
        """A sweep's own comparison, and what the checks say of its jobs."""
        folder = self._folder(id)
        path = folder / "compare" / "compare.json"
        compared = read_json(path) if path.is_file() else None
        state = read_json(folder / "sweep.json")
        jobs = [
            {key: job.get(key) for key in ("variant", "seed", "status", "note")}
            | {"id": self._id(folder / "runs" / f"{job['variant']}-seed{job['seed']}")}
            for job in state.get("jobs", [])
            if isinstance(job, dict)
        ]
        return {
            "name": self._line(folder)["name"],
            "compare": compared,
            "jobs": jobs,
            "variants": state.get("variants"),
        }

    def stamp(self, id: str) -> list[Any]:
        """What changes when a run's files do."""
        return self._stamp(self._folder(id))

    # -- beneath -------------------------------------------------------------------------

    def _index(self, folder: Path) -> Index:
        if folder not in self._indices:
            self._indices[folder] = Index(folder)
        index = self._indices[folder]
        index.refresh()
        return index

    def _records(self, id: str) -> list[Record]:
        """The records of a run, read again when its files have changed: what they hold
        is read once for all that is asked of it.
        """
        stamp = self._stamp(self._folder(id))
        if id not in self._known or self._known[id][0] != stamp:
            self._known[id] = (stamp, records.read(self._folder(id)))
        return self._known[id][1]


def _proofs(record: Record) -> list[dict[str, Any]]:
    try:
        return [asdict(proof) for proof in read_proofs(record.folder)]
    except InputError as error:
        record.unread.append(str(error))
        return []


def _pair(pair: Pair) -> dict[str, Any]:
    before, after = pair
    return {
        "question": browse.question_of(after),
        "truth": after["truth"],
        "before": before["response"],
        "after": after["response"],
    }


def _text_of(path: Path) -> str:
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _integer(name: str, text: str) -> int:
    if len(text) <= 18 and re.fullmatch(r"-?\d+", text, re.ASCII):
        return int(text)
    raise InputError(f"{name} is {text!r:.40}; expected a number")
