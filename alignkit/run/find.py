"""Find runs and what they measured."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.run.files import read_json
from alignkit.run.folder import Run


def find_runs(root: Path) -> list[Run]:
    """The run folders directly in `root`, oldest first; folders without a readable
    manifest are left out.
    """
    runs = []
    for manifest in sorted(root.glob("*/manifest.json")):
        with contextlib.suppress(InputError):
            runs.append(Run.open(manifest.parent))
    return sorted(runs, key=lambda run: str(run.manifest.get("created")))


def newest_finished(root: Path) -> Run:
    """The newest run that is done and has a model; a stage of a pipeline is a run too.

    Raises:
        InputError: when there is none.
    """
    found = [
        run for folder in (root, *root.glob("*/stages")) for run in find_runs(folder)
    ]
    done = [run for run in found if run.status == "done" and run.model.is_dir()]
    if not done:
        raise InputError(
            f"no finished run in {root}; pass --model with a folder, a hub id or a run,"
            " or `align run` first"
        )
    return max(done, key=lambda run: str(run.manifest.get("created")))


def eval_summaries(folder: Path) -> dict[str, Any]:
    """The summaries of a run's evals by name, at the first and at the last step they
    ran.
    """
    found: dict[str, Any] = {}
    steps = {
        path: path.parent.name.rpartition("@")[2]
        for path in sorted(folder.glob("evals/*@*/summary.json"))
    }
    numbered = {path: int(step) for path, step in steps.items() if step.isdecimal()}
    for path, step in sorted(numbered.items(), key=lambda each: each[1]):
        summary = {"step": step, **read_json(path)}
        if lacking := {"eval", "metric", "value"} - summary.keys():
            raise InputError(
                f"{path} is damaged: it has no {', '.join(sorted(lacking))}"
            )
        entry = found.setdefault(summary["eval"], {"first": summary})
        entry["last"] = summary
    return found
