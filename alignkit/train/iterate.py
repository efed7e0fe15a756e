"""Expert iteration (Anthony et al. 2017; CS336 assignment 5, section 5): sample, keep
what is correct, train, repeat.

Each part of an iteration is written when it is complete, so a killed run goes on where
it was.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import run
from alignkit.errors import InputError
from alignkit.recipe import to_yaml
from alignkit.recipe.schema import ExpertIteration
from alignkit.run.files import read_json
from alignkit.terminal import say
from alignkit.train.asking import UNCHANGED, revision_of
from alignkit.train.children import child, run_stage, status
from alignkit.train.direct import tracked
from alignkit.train.resumed import tokens_spent
from alignkit.train.tracking import say_how_to_sync

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

COUNTED = ("ei/kept", "ei/rollouts", "ei/questions", "ei/fraction_solved")
log = logging.getLogger(__name__)


def execute(
    recipe: Recipe, registry: Registry, console: Console, folder: run.Run
) -> dict[str, Any]:
    """Run what is missing of the iterations.

    Each iteration is a folder: `rollouts.jsonl`, `train.jsonl`, `sampled.json`, and
    `sft/`, a run of its own. An iteration that keeps nothing leaves the model as it is.

    Returns: The first and last summary of each eval, by its name; their step is the
        iteration.
    """
    config = _config(recipe)
    model = _start(config, folder)
    # each iteration's row is written again from what the iteration left
    folder.write("metrics.jsonl", "")
    about = config.track, config.name, config.method, recipe.resolved
    with tracked(*about, folder.folder) as told:
        for iteration in range(1, config.expert_iteration.iterations + 1):
            # a recipe's paths are relative to its file
            home = folder.folder.resolve() / "iterations" / f"{iteration:03d}"
            if not (home / "sampled.json").is_file():
                console.rule(f"iteration {iteration}: sample")
                home.mkdir(parents=True, exist_ok=True)
                arguments = [
                    "_sample",
                    str(folder.folder),
                    "--iteration",
                    str(iteration),
                    "--model",
                    str(model),
                ]
                child(
                    arguments,
                    registry,
                    f"sampling of iteration {iteration}",
                    folder.folder / "log.txt",
                    folder.folder,
                )
            counts = _counted(home / "sampled.json")
            _line(console, iteration, counts)
            if counts["ei/kept"]:
                file = home / "sft.yaml"
                run.atomic_write(
                    file,
                    to_yaml(
                        _sft(recipe, home, iteration, str(model), counts["ei/kept"])
                    ),
                )
                if status(home / "sft") != "done":
                    console.rule(f"iteration {iteration}: train")
                    run_stage(
                        f"iteration {iteration}",
                        file,
                        home / "sft",
                        registry,
                        folder.folder,
                    )
                model = home / "sft" / "model"
            else:
                log.warning(
                    "iteration %d kept no rollout; the model stays as it is", iteration
                )
                say(
                    console,
                    f"iteration {iteration} kept no rollout; the model stays as it is",
                )
            if iteration == 1:
                told(0, _log(folder, 0, {}, folder.folder))
            trained = home / ("sft" if counts["ei/kept"] else UNCHANGED)
            told(iteration, _log(folder, iteration, counts, trained))
    say_how_to_sync(console, config.track, folder.folder)
    _finish(config, folder, model)
    return run.eval_summaries(folder.folder)


def _counted(file: Path) -> dict[str, Any]:
    """What sampling counted.

    Raises:
        InputError: the file is damaged.
    """
    counts = read_json(file)
    for name in COUNTED:
        if not isinstance(counts.get(name), int | float):
            raise InputError(
                f"{file} is damaged: {name} is {counts.get(name)!r:.80}, not a number;"
                " remove it, and the iteration is sampled again"
            )
    return counts


def _config(recipe: Recipe) -> ExpertIteration:
    assert isinstance(recipe.config, ExpertIteration)
    return recipe.config


def _finish(config: ExpertIteration, folder: run.Run, model: Path | str) -> None:
    """Copy the last iteration's model to model/."""
    from alignkit import models

    # of a process that was killed just before its end
    shutil.rmtree(folder.model, ignore_errors=True)
    if isinstance(model, Path):
        final = folder.folder / "model.partial"
        shutil.rmtree(final, ignore_errors=True)
        shutil.copytree(model, final)
        final.rename(folder.model)
    else:  # nothing was ever kept, and the start may be a Hub id or a run
        settings = config.model
        models.save(
            *models.load(model, dtype=settings.dtype, revision=settings.revision),
            folder.model,
        )


def _start(config: ExpertIteration, folder: run.Run) -> Path | str:
    from alignkit import models

    if config.model.build is None:
        return str(config.model.path)
    start = folder.folder.resolve() / "start"
    if not start.is_dir():
        models.save(*models.build(config.model.build, config.seed), start)
    return start


def train_settings(config: ExpertIteration, kept: int) -> dict[str, Any]:
    """The TRL fields of an iteration that kept so many responses: `train`, and what
    `train_by_kept` changes in it.
    """
    settings = config.expert_iteration
    reached = sorted(
        int(number) for number in settings.train_by_kept if kept <= int(number)
    )
    changes = settings.train_by_kept[str(reached[0])] if reached else {}
    return {**config.train, **changes, "num_train_epochs": settings.epochs}


def _sft(
    recipe: Recipe, home: Path, iteration: int, model: str, kept: int
) -> dict[str, Any]:
    """The recipe of one iteration's training."""
    resolved, config = recipe.resolved, _config(recipe)
    settings = {
        key: value
        for key, value in resolved["model"].items()
        if key not in ("path", "build", "revision")
    }
    if (revision := revision_of(config, model)) is not None:
        settings["revision"] = revision
    found: dict[str, Any] = {
        "name": f"{resolved['name']}-{iteration}",
        "method": "sft",
        "seed": config.seed + iteration,
        "model": {**settings, "path": model},
        "data": {"train": {"dataset": "jsonl", "path": str(home / "train.jsonl")}},
        "train": train_settings(config, kept),
        "evals": {
            name: {**e, "before": False}
            for name, e in resolved.get("evals", {}).items()
        },
    }
    for key in ("loss", "callbacks", "track", "launch", "waive"):
        if key in resolved:
            found[key] = resolved[key]
    return found


def _log(
    folder: run.Run, iteration: int, counts: dict[str, Any], source: Path
) -> dict[str, Any]:
    """One row of metrics, which is given back, and the iteration's evals under its
    number.
    """
    numbers = {k: v for k, v in counts.items() if isinstance(v, int | float)}
    for name, entry in run.eval_summaries(source).items():
        summary = entry["first"] if iteration == 0 else entry["last"]
        numbers |= {f"eval/{name}/{summary['metric']}": summary["value"]}
        target = folder.folder / "evals" / f"{name}@{iteration}"
        if iteration and not target.is_dir():
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source / "evals" / f"{name}@{summary['step']}", partial)
            run.write_json(partial / "summary.json", {**summary, "step": iteration})
            partial.rename(target)
    if numbers:
        spent = tokens_spent(folder) + int(counts.get("ei/tokens", 0))
        if (source / "manifest.json").is_file():
            spent += tokens_spent(run.Run.open(source)) if iteration else 0
        folder.append_metrics({"step": iteration, "tokens": spent, **numbers})
    return numbers


def _line(console: Console, iteration: int, counts: dict[str, Any]) -> None:
    say(
        console,
        f"iteration {iteration}: kept {counts['ei/kept']} of {counts['ei/rollouts']}"
        f" rollouts, solved {counts['ei/fraction_solved']:.1%} of"
        f" {counts['ei/questions']} questions",
    )
