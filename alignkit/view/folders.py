"""The folder that a page shows: what lies in it, by names that cannot leave it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignkit import records
from alignkit.errors import AlignError, InputError
from alignkit.records import Eval, Record
from alignkit.run import Run


class Folders:
    """Runs below a root by their `id`, the path relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def _folder(self, id: str) -> Path:
        folder = (self.root / id).resolve()
        if not folder.is_relative_to(self.root) or not folder.is_dir():
            raise InputError(f"there is no run {id!r} in {self.root.name}")
        return folder

    def _id(self, folder: Path) -> str:
        resolved = folder.resolve()
        inside = resolved.is_relative_to(self.root)
        return str(resolved.relative_to(self.root)) if inside else ""

    def _record(self, id: str) -> Record:
        read = records.read(self._folder(id))
        if len(read) != 1:
            raise InputError(f"{id} has stages; ask for one of them")
        return read[0]

    def _line(self, folder: Path) -> dict[str, Any]:
        """One line of the list of runs."""
        run = Run.open(folder)
        manifest = run.manifest
        sweep = (folder / "sweep.json").is_file()
        try:
            evals = [] if sweep else [e for r in records.read(folder) for e in r.evals]
        except AlignError:  # the line stands without them; the run's page says why
            evals = []
        last = {each.name: each for each in evals}
        timings = manifest.get("timings")
        return {
            "id": self._id(folder),
            "kind": "sweep" if sweep else "run",
            "name": manifest.get("name"),
            "folder": folder.name,
            "method": manifest.get("method"),
            "status": run.status,
            "error": manifest.get("error"),
            "created": manifest.get("created"),
            "seed": manifest.get("seed"),
            "seconds": timings.get("total_seconds")
            if isinstance(timings, dict)
            else None,
            "alarms": manifest.get("alarms", []),
            "evals": [self._eval_line(each) for each in last.values()],
        }

    def _eval_line(self, each: Eval) -> dict[str, Any]:
        keys = (
            "metric",
            "value",
            "low",
            "high",
            "n",
            "status",
            "metrics",
            "provenance",
        )
        numbers = {key: each.summary.get(key) for key in keys}
        return {"name": each.name, "step": each.step, **numbers}

    def _stamp(self, folder: Path) -> list[Any]:
        files = [*folder.glob("**/manifest.json"), *folder.glob("**/metrics.jsonl")]
        files += folder.glob("**/evals/*/summary.json")
        return sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
