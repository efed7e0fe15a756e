"""`align run`: train as a recipe says."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click

from alignkit.cli.common import (
    allow_option,
    console,
    json_option,
    kit_option,
    load_recipe,
    print_json,
)
from alignkit.cli.executing import Choice, elsewhere, executor_options
from alignkit.errors import InputError
from alignkit.terminal import say, waiting


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--with",
    "overlays",
    multiple=True,
    metavar="FILE",
    help="Merge an overlay (repeatable).",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key (repeatable).",
)
@kit_option
@allow_option
@click.option(
    "--out",
    "root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the run folder is made (default: output.root of the recipe, runs/).",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Make exactly this run folder.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with an interrupted or failed run, in its folder.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="With --resume: also when it cannot be told whether the run's process, on"
    " another machine, still lives. If it does, both write.",
)
@click.option(
    "--from",
    "first",
    metavar="RUN[@STEP]|STAGE",
    help="Start from the weights of another run, at a checkpoint's step; of a pipeline:"
    " keep its first stages that are the same here. With --resume, of a pipeline: run"
    " this stage and all after it anew.",
)
@click.option("--only", metavar="STAGE", help="Of a pipeline: run this stage alone.")
@executor_options
@click.option(
    "--tied",
    is_flag=True,
    hidden=True,
    help="End with the process that started this one.",
)
@click.option(
    "--stage",
    is_flag=True,
    hidden=True,
    help="A pipeline runs this as one of its stages.",
)
@click.option(
    "--join",
    type=click.Path(path_type=Path),
    hidden=True,
    help="This is one of several training processes of the run.",
)
@click.option(
    "--continue",
    "goes_on",
    is_flag=True,
    hidden=True,
    help="With --join: from the newest checkpoint.",
)
@json_option
def run(
    recipe: str | None,
    overlays: tuple[str, ...],
    sets: tuple[str, ...],
    kit: tuple[str, ...],
    root: Path | None,
    folder: Path | None,
    resume: Path | None,
    take_over: bool,
    first: str | None,
    only: str | None,
    executor: Choice,
    tied: bool,
    stage: bool,
    join: Path | None,
    goes_on: bool,
    as_json: bool,
) -> int:
    """Run RECIPE: evaluate, train, evaluate, save. Prints where the run folder is."""
    from alignkit import kits
    from alignkit import plan as planning
    from alignkit.data.datasets import Datasets
    from alignkit.run import Run, stopping
    from alignkit.run.manifest import told
    from alignkit.train import branch

    if tied:
        # tells a whole Slurm job that it is to end: the one that started this acts
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if stage or tied or join is not None:
        from alignkit.train.children import end_with_parent

        end_with_parent()
    if (recipe is None) == (resume is None):
        raise InputError(
            "name a recipe, or a run to --resume (and not both): align run"
            " recipes/quickstart.yaml"
        )
    if resume is not None and (overlays or sets or root or folder):
        raise InputError(
            "--resume goes on with the run's own recipe: --with, --set, --out and"
            " --folder do not apply"
        )
    if take_over and resume is None:
        raise InputError("--take-over goes with --resume RUN")
    if resume is not None:
        Run.open(resume)  # says so when it is no run folder
        recipe = str(resume / "recipe.yaml")
    earlier, lineage = None, None
    if first is not None and resume is None and _is_folder(first):
        earlier, first = first, None
        if not branch.is_pipeline(earlier):
            lineage = branch.origin(earlier)
            sets = (*sets, f"model.path={json.dumps(lineage['weights'])}")
    if executor.flags and (earlier or first or only):
        raise InputError("--from and --only are for runs on this machine")
    whole = not stage and join is None  # else another process speaks to the user
    loaded, registry = load_recipe(str(recipe), overlays, sets, kit, told=whole)
    if (first or only) and loaded.config.method != "pipeline":
        raise InputError(
            "--from and --only choose stages of a pipeline, and this recipe is none; of"
            " another run to start from, --from gives the folder: RUN or RUN@STEP"
        )
    datasets = Datasets(registry)
    if earlier is not None and lineage is None:
        lineage = branch.kept_stages(earlier, loaded, registry, datasets)
    # a pipeline has planned its stages, a launcher its processes
    warnings: list[str] = []
    if whole:
        with waiting(console(as_json), "planning"):
            plans = planning.plan(loaded, registry, datasets)
        planning.require(plans, loaded, overlays)
        warnings = [f"{p.name}: {text}" for p in plans for text in p.warnings]
    if executor.flags:
        place = executor, root, folder, resume, take_over
        return elsewhere(loaded, registry, *place, as_json)

    from alignkit.train.start import Options, start

    options = Options(
        root=root,
        folder=folder,
        resume=resume,
        first=first,
        only=only,
        stage=stage,
        join=join,
        goes_on=goes_on,
        take_over=take_over,
        lineage=lineage,
    )
    out_console = console(as_json)
    for text in warnings:
        say(out_console, f"warning: {text}")
    if lineage is not None:
        say(out_console, told(lineage))
        if lineage.get("anew"):
            say(out_console, f"run anew: {lineage['anew']}")
    outcome = start(loaded, registry, datasets, options, out_console)
    if outcome.interrupted:
        # the one that started this process says how to go on
        if not options.started_by_another:
            where = "--resume", outcome.run.folder
            again = kits.command(registry.kits, "run", *where)
            say(out_console, f"interrupted; to go on: {again}")
        return stopping.exit_code()
    if outcome.evals is None:  # the training processes have told of them
        return 0
    done, evals = outcome.run, outcome.evals
    if as_json:
        print_json({"folder": str(done.folder), "status": done.status, "evals": evals})
    elif not stage and done.writes:
        from alignkit.report import summary

        summary.print_run(done, loaded, evals, registry.kits, warnings, out_console)
    return 0


def _is_folder(given: str) -> bool:
    """Whether `RUN` or `RUN@STEP` names one, and not a stage."""
    return Path(given).is_dir() or Path(given.rpartition("@")[0] or given).is_dir()
