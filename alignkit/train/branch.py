"""A run that starts from where another one stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.run import Run, checkpoints


def origin(given: str) -> dict[str, Any]:
    """What `--from RUN[@STEP]` means: the run, the step and its weights, as they go into
    the manifest of the new run. Without a step: the final model, else the newest whole
    checkpoint.

    Raises:
        InputError: no such run, or it holds no whole checkpoint of that step.
    """
    name, at, number = given.rpartition("@")
    if not at or (Path(given) / "manifest.json").is_file():
        name, number = given, ""
    run = Run.open(name)
    home = run.folder.resolve() / "checkpoints"
    found = checkpoints.by_step(home)
    if not number and (run.model / "config.json").is_file():
        step = run.manifest.get("training", {}).get("steps")
        weights: Path | None = run.model.resolve()
    elif not number:
        weights, _ = checkpoints.newest(home)
        step = None if weights is None else int(weights.name.rpartition("-")[2])
    else:
        step = int(number) if number.isdecimal() and len(number) < 12 else None
        weights = found.get(step) if step is not None else None
    if weights is not None and weights.parent == home:
        if fault := checkpoints.fault_of(weights):
            raise InputError(f"{weights} is not whole: {fault}")
        if not (weights / "config.json").is_file():
            raise InputError(
                f"{weights} holds an adapter alone; only whole models can be started from"
            )
    if weights is None:
        steps = ", ".join(map(str, sorted(found))) or "none"
        raise InputError(
            f"{name} has no {f'step {number}' if number else 'model'} to start from; it"
            f" holds checkpoints of these steps: {steps}"
        )
    return {
        "run": str(run.folder.resolve()),
        "name": run.manifest.get("name"),
        "fingerprint": run.manifest.get("fingerprint"),
        "step": step,
        "weights": str(weights),
    }
