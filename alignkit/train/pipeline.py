"""Pipelines: stages one after another, each in its own process, so that its memory is
free for the next.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import kits, provenance, run
from alignkit.errors import InputError, nearest
from alignkit.recipe import to_yaml
from alignkit.terminal import say
from alignkit.train.children import run_stage, status

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.data.datasets import Datasets
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe


def check(
    recipe: Recipe,
    first: str | None,
    only: str | None,
    folder: Path | None,
    registry: Registry,
    datasets: Datasets,
) -> None:
    """Refuse a choice of stages that cannot be run.

    Args:
        first: the stage from which on all are run anew. only: the one stage to run.
            folder: of a run to go on with.

    Raises:
        InputError: an unknown stage; or one before `first` is not done, or was done
            with other data, plugins or versions.
    """
    names = list(recipe.stages)
    for given in (first, only):
        if given is not None and given not in names:
            raise InputError(f"there is no stage '{given}'; {nearest(given, names)}")
    if first is not None and (folder is None or only is not None):
        raise InputError(
            "--from runs stages of a run anew: give the run with --resume RUN, and no"
            " --only"
        )
    if only is not None:
        resolved(recipe.stages[only], folder, only)
    if first is None or folder is None:
        return
    for name in names[: names.index(first)]:
        inside = folder / "stages" / name
        if status(inside) != "done":
            again = kits.command(registry.kits, "run", "--resume", folder)
            raise InputError(
                f"stage {name} comes before {first} and is not done; go on with {again}"
            )
        stage = recipe.stages[name]
        stage = replace(stage, resolved=resolved(stage, folder, name))
        now = provenance.of_run(stage, registry, datasets)
        if changed := provenance.changes(run.Run.open(inside).manifest, now):
            anew = kits.command(registry.kits, "run", folder / "recipe.yaml")
            raise InputError(
                f"stage {name} was done with other data, plugins or versions than are"
                f" here now ({'; '.join(changed)}), so {first} would not follow from"
                f" it; start anew: {anew}"
            )


def execute(
    recipe: Recipe,
    registry: Registry,
    console: Console,
    folder: run.Run,
    *,
    only: str | None = None,
) -> dict[str, Any]:
    """Run the stages in order; a stage that is done already is kept, and one that was
    begun goes on.

    Args:
        only: run just this one. See `check`.

    Returns:
        The last summary of each eval, by stage and eval.

    Raises:
        WorkError: a stage failed.
    """
    names = list(recipe.stages)
    for name in names if only is None else [only]:
        inside = folder.folder / "stages" / name
        if status(inside) == "done":
            say(console, f"stage {name}: done already, kept")
            continue
        console.rule(f"stage {name}")
        file = folder.folder / "stages" / f"{name}.yaml"
        run.atomic_write(
            file, to_yaml(resolved(recipe.stages[name], folder.folder, name))
        )
        run_stage(name, file, inside, registry, folder.folder)
    if any(status(folder.folder / "stages" / name) != "done" for name in names):
        folder.outcome = "interrupted"  # `--only`: the others can be run by --resume
    return {name: run.eval_summaries(folder.folder / "stages" / name) for name in names}


def set_aside(recipe: Recipe, folder: Path, first: str) -> None:
    """Move what this stage and all after it left to `earlier/`, so that they are run
    anew.

    The last stage goes first: a kill in between leaves no stage that is done after one
    that is not.
    """
    names = list(recipe.stages)
    for name in reversed(names[names.index(first) :]):
        done = folder / "stages" / name
        if done.is_dir():
            earlier = folder / "earlier"
            with run.writing(earlier):
                earlier.mkdir(exist_ok=True)
                done.rename(
                    earlier / f"{name}-{1 + len(list(earlier.glob(f'{name}-*')))}"
                )


def resolved(stage: Recipe, pipeline: Path | None, name: str) -> dict[str, Any]:
    """The stage's recipe, with the run of an earlier stage in the place of `stage:…`.

    Raises:
        InputError: that stage is not done.
    """
    config: dict[str, Any] = json.loads(json.dumps(stage.resolved))
    path = config["model"].get("path") or ""
    if path.startswith("stage:"):
        needed = path.removeprefix("stage:")
        before = pipeline / "stages" / needed if pipeline is not None else None
        if before is None or status(before) != "done":
            raise InputError(
                f"stage {name} starts from stage {needed}, which is not done; run that"
                " first"
            )
        config["model"]["path"] = str(before.resolve())
    return config
