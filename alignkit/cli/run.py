"""`align run`: train as a recipe says."""

from __future__ import annotations

from pathlib import Path

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_recipe,
    print_json,
)
from alignkit.errors import InputError
from alignkit.terminal import say


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
@click.option(
    "--out",
    metavar="DIR",
    help="Where the run folder is made (default: output.root of the recipe, runs/).",
)
@click.option("--folder", metavar="DIR", help="Make exactly this run folder.")
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with an interrupted or failed run, in its folder.",
)
@click.option(
    "--from",
    "first",
    metavar="STAGE",
    help="With --resume, of a pipeline: run this stage and all after it anew.",
)
@click.option("--only", metavar="STAGE", help="Of a pipeline: run this stage alone.")
@click.option(
    "--stage",
    is_flag=True,
    hidden=True,
    help="A pipeline runs this as one of its stages.",
)
@click.option(
    "--join", hidden=True, help="This is one of several training processes of the run."
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
    out: str | None,
    folder: str | None,
    resume: str | None,
    first: str | None,
    only: str | None,
    stage: bool,
    join: str | None,
    goes_on: bool,
    as_json: bool,
) -> int:
    """Run RECIPE: evaluate, train, evaluate, save. Prints where the run folder is."""
    from alignkit import plan as planning
    from alignkit import provenance
    from alignkit.run import Run

    if stage:
        from alignkit.train.pipeline import end_with_parent

        end_with_parent()
    if (recipe is None) == (resume is None):
        raise InputError(
            "name a recipe, or a run to --resume (and not both): align run"
            " recipes/quickstart.yaml"
        )
    if resume is not None and (overlays or sets or out or folder):
        raise InputError(
            "--resume goes on with the run's own recipe: --with, --set, --out and"
            " --folder do not apply"
        )
    source = recipe if recipe is not None else str(Path(str(resume)) / "recipe.yaml")
    if resume is not None:
        Run.open(resume)  # says so when it is no run folder
    loaded, registry = load_recipe(source, overlays, sets, kit)
    if (first or only) and loaded.config.method != "pipeline":
        raise InputError(
            "--from and --only choose stages of a pipeline; this recipe is none"
        )
    out_console = console(as_json)
    # a pipeline has planned its stages, a launcher its processes
    if not stage and join is None:
        planning.require(planning.plan(loaded, registry), loaded, overlays)

    from alignkit.train import iterate, launch, pipeline, training

    if loaded.config.method == "pipeline":
        pipeline.check(loaded, first, only, Path(resume) if resume else None, registry)
    if join is not None:
        made = Run.join(join)
    elif resume is not None:
        if first is None:
            for note in training.check_unchanged(loaded, registry, Run.open(resume)):
                out_console.print(note, highlight=False, soft_wrap=True)
        made = Run.reopen(resume, redo=first is not None)
        # before the new fingerprint is written: a kill in between must not pass old
        # stages off
        if first is not None:
            pipeline.set_aside(loaded, made.folder, first)
            made.update(**provenance.of_run(loaded, registry).record())
    else:
        made = training.create_run(
            loaded,
            registry,
            Path(out) if out else None,
            Path(folder) if folder else None,
        )
        for note in made.manifest["identity"]["not_covered"]:
            out_console.print(
                f"its changes would not be seen: {note}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    if made.writes and join is None:
        say(out_console, f"run folder: {made.folder}")
    try:
        if (
            loaded.config.launch.processes > 1
            and join is None
            and loaded.config.method not in ("pipeline", "expert_iteration")
        ):
            return launch.processes(
                loaded.config.launch.processes,
                made,
                registry,
                resume=resume is not None,
            )
        with made.recorded():
            if loaded.config.method == "pipeline":
                result = pipeline.execute(
                    loaded, registry, out_console, made, only=only
                )
            elif loaded.config.method == "expert_iteration":
                result = iterate.execute(loaded, registry, out_console, made)
            else:
                result = training.execute(
                    loaded,
                    registry,
                    out_console,
                    made,
                    resume=resume is not None or goes_on,
                )
    except KeyboardInterrupt:
        # the one that started this process says how to go on
        if not stage and join is None:
            text = f"interrupted; to go on: align run --resume {made.folder}"
            say(out_console, text)
        return 130
    if as_json:
        print_json({"folder": str(made.folder), "status": made.status, "evals": result})
    elif not stage and made.writes:
        from alignkit.report import summary

        summary.print_run(made, loaded.config, result, out_console)
    return 0
