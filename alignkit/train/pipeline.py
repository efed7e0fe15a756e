"""Pipelines: stages one after another, each in its own process, so that its memory is
free for the next.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import provenance, run
from alignkit.errors import InputError, WorkError, nearest
from alignkit.recipe import to_yaml

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe


def check(
    recipe: Recipe,
    first: str | None,
    only: str | None,
    folder: Path | None,
    registry: Registry,
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
        _resolved(recipe.stages[only], folder, only)
    if first is None or folder is None:
        return
    for name in names[: names.index(first)]:
        inside = folder / "stages" / name
        if _status(inside) != "done":
            raise InputError(
                f"stage {name} comes before {first} and is not done; go on with align"
                f" run --resume {folder}"
            )
        stage = recipe.stages[name]
        now = provenance.of_run(
            replace(stage, resolved=_resolved(stage, folder, name)), registry
        )
        if changed := provenance.changes(run.Run.open(inside).manifest, now):
            raise InputError(
                f"stage {name} was done with other data, plugins or versions than are"
                f" here now ({'; '.join(changed)}), so {first} would not follow from"
                f" it; start anew: align run {folder / 'recipe.yaml'}"
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
        if _status(inside) == "done":
            console.print(f"stage {name}: done already, kept", highlight=False)
            continue
        console.rule(f"stage {name}")
        file = folder.folder / "stages" / f"{name}.yaml"
        run.atomic_write(
            file, to_yaml(_resolved(recipe.stages[name], folder.folder, name))
        )
        run_stage(name, file, inside, registry, folder.folder)
    if any(_status(folder.folder / "stages" / name) != "done" for name in names):
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


def _resolved(stage: Recipe, pipeline: Path | None, name: str) -> dict[str, Any]:
    """The stage's recipe, with the run of an earlier stage in the place of `stage:…`."""
    resolved = json.loads(json.dumps(stage.resolved))
    path = resolved["model"].get("path") or ""
    if path.startswith("stage:"):
        needed = path.removeprefix("stage:")
        before = pipeline / "stages" / needed if pipeline is not None else None
        if before is None or _status(before) != "done":
            raise InputError(
                f"stage {name} starts from stage {needed}, which is not done; run that"
                " first"
            )
        resolved["model"]["path"] = str(before.resolve())
    return resolved


def run_stage(
    name: str, file: Path, inside: Path, registry: Registry, resume: Path
) -> None:
    """Train the recipe `file` in the run folder `inside`, in a process of its own; go
    on where one was begun.

    Raises:
        WorkError: it failed; `resume` is the run to resume once the cause is mended.
    """
    begun = (inside / "recipe.yaml").is_file()
    if not begun:  # killed before its recipe, the last of its first files, was written
        shutil.rmtree(inside, ignore_errors=True)
    # its pipeline was killed a moment ago, and it is about to notice
    while begun and _status(inside) == "running":
        time.sleep(0.2)
    if begun and _status(inside) == "done":
        return
    where = ["--resume", str(inside)] if begun else [str(file), "--folder", str(inside)]
    child(
        ["run", "--stage", *where],
        registry,
        f"stage {name}",
        inside / "log.txt",
        resume,
    )


def child(
    arguments: Sequence[str], registry: Registry, what: str, log: Path, resume: Path
) -> None:
    """Run an align command in a process of its own, with the same kits. It ends when
    this process is killed.

    Raises:
        WorkError: it failed. KeyboardInterrupt: it was interrupted.
    """
    kits = [
        part
        for kit in registry.kits
        if kit.name != "builtin"
        for part in ("--kit", str(kit.root))
    ]
    # The child sees its standard input end when this process is gone: see
    # `end_with_parent`.
    process = subprocess.Popen(
        [sys.executable, "-m", "alignkit.cli", *arguments, *kits], stdin=subprocess.PIPE
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # the terminal has interrupted it too
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise WorkError(
            f"{what} failed (exit {code}); its log: {log}\n"
            f"to go on from there once the cause is mended: align run --resume {resume}"
        )


def end_with_parent() -> None:
    """End this process, as by kill -9, when the one that started it by `child` is gone.

    Else a killed pipeline would leave a stage at work, beside the one that resumes it.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _status(folder: Path) -> str | None:
    return run.Run.open(folder).status if (folder / "manifest.json").is_file() else None
