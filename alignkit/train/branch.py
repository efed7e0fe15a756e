"""A run that starts from where another one stood: from its weights, or, a pipeline,
with the stages that the other has done already.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit import provenance
from alignkit.errors import InputError
from alignkit.recipe import diff_resolved, load
from alignkit.run import Run, checkpoints
from alignkit.run.manifest import Lineage
from alignkit.train import pipeline
from alignkit.train.children import status

if TYPE_CHECKING:
    from alignkit.data.datasets import Datasets
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe


def origin(given: str) -> Lineage:
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


def is_pipeline(given: str) -> bool:
    """Whether `--from` names the run of a pipeline.

    Raises:
        InputError: it names no run.
    """
    folder = Path(given)
    return folder.is_dir() and Run.open(folder).manifest.get("method") == "pipeline"


def kept_stages(
    given: str, recipe: Recipe, registry: Registry, datasets: Datasets
) -> Lineage:
    """What `--from RUN` means of a pipeline: which stages RUN has done just as this
    recipe states them, from the first on, as they go into the manifest of the new run.
    `anew` says of the first that it has not, why.

    Raises:
        InputError: no such run, no pipeline, or not even the first stage is kept.
    """
    if not recipe.stages:
        raise InputError(
            f"--from {given}: that is a pipeline, and this recipe is none; start from"
            f" one of its stages, such as --from {Path(given) / 'stages'}/NAME"
        )
    run = Run.open(given)
    lineage: Lineage = {
        "run": str(run.folder.resolve()),
        "name": run.manifest.get("name"),
        "fingerprint": run.manifest.get("fingerprint"),
        "stages": [],
        "anew": "",
    }
    for name, stage in recipe.stages.items():
        reason = _changed(run.folder / "stages" / name, name, stage, registry, datasets)
        if reason:
            lineage["anew"] = f"stage {name}: {reason}"
            break
        lineage["stages"].append(name)
    if not lineage["stages"]:
        raise InputError(f"{given} has no stage to keep: {lineage['anew']}")
    return lineage


def keep(lineage: Lineage, run: Run) -> None:
    """Put the kept stages into a new pipeline's folder. Weights, which are never
    changed, are the same files where the file system can do that.
    """
    for name in lineage.get("stages", []):
        target = run.folder / "stages" / name
        partial = target.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        source = Path(lineage["run"]) / "stages" / name
        shutil.copytree(source, partial, copy_function=_copy)
        partial.rename(target)


def _changed(
    inside: Path, name: str, stage: Recipe, registry: Registry, datasets: Datasets
) -> str:
    """Why a done stage is not what the recipe states; empty where it is."""
    if status(inside) != "done":
        return f"it is not done in {inside}"
    pipeline_folder = inside.parents[1]
    stage = replace(stage, resolved=pipeline.resolved(stage, pipeline_folder, name))
    now = provenance.of_run(stage, registry, datasets)
    changes = provenance.changes(Run.open(inside).manifest, now)
    if "recipe changed" not in changes:
        return "; ".join(changes)
    there = load(inside / "recipe.yaml", registry=registry)
    keys = [d.key for d in diff_resolved(there.resolved, stage.resolved)]
    others = [change for change in changes if change != "recipe changed"]
    return "; ".join([f"its recipe changed ({', '.join(keys)})", *others])


def _copy(source: str, target: str) -> str:
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return target
    return shutil.copy2(source, target)
