"""Begin a run, or go on with one: what `align run` does with a recipe and its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import kits, provenance
from alignkit.errors import InputError
from alignkit.machine import here
from alignkit.recipe import as_recipe, diff_against_parent, to_yaml
from alignkit.recipe.schema import ExpertIteration, Pipeline
from alignkit.run import Run
from alignkit.terminal import say
from alignkit.train import branch, iterate, launch, pipeline, stops, training
from alignkit.train.watchers import Watchers

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.data.datasets import Datasets
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.run.manifest import Lineage


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is begun or gone on with.

    `root` and `folder`: where its folder is made, exactly or below. `resume`: the run
    to go on with; `take_over`: also when it cannot be told whether its process lives.
    `lineage`: the run whose weights it starts from, or whose stages are kept. `first`, `only`: of a pipeline, the
    stage from which all are run anew and the one stage to run.

    Of a process that another alignkit process started: `stage` says that it works on a
    part of a run, `join` is the run of which it is one of several training processes,
    and `goes_on` says that these take the newest checkpoint.
    """

    root: Path | None = None
    folder: Path | None = None
    resume: Path | None = None
    first: str | None = None
    only: str | None = None
    stage: bool = False
    join: Path | None = None
    goes_on: bool = False
    take_over: bool = False
    lineage: Lineage | None = None

    @property
    def started_by_another(self) -> bool:
        """Whether another process has planned the work, and speaks to the user."""
        return self.stage or self.join is not None


@dataclass(frozen=True)
class Outcome:
    """What became of a run that did not fail.

    `evals`: the first and the last summary of each eval, by its name (of a pipeline, by
    stage); None where the training processes have told of them.
    """

    run: Run
    evals: dict[str, Any] | None
    interrupted: bool = False


def start(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    options: Options,
    console: Console,
) -> Outcome:
    """Make or reopen the run folder, and do in it what the recipe says.

    Raises:
        InputError: a choice of stages that cannot be run, a folder that is there
            already, a run that is done, at work, or of another experiment.
        WorkError: the work failed; the run folder says why.
    """
    if isinstance(recipe.config, Pipeline):
        choice = options.first, options.only, options.resume
        pipeline.check(recipe, *choice, registry, datasets)
    run = _folder(recipe, registry, datasets, options, console)
    if run.writes and options.join is None:
        say(console, f"run folder: {run.folder}")
    try:
        return Outcome(run, _work(recipe, registry, datasets, options, console, run))
    except KeyboardInterrupt:
        return Outcome(run, None, interrupted=True)


def _folder(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    options: Options,
    console: Console,
) -> Run:
    if options.join is not None:
        return Run.join(options.join)
    if options.resume is None:
        run = create_run(recipe, registry, datasets, options.root, options.folder)
        if options.lineage is not None:
            run.update(lineage=options.lineage)
            branch.keep(options.lineage, run)
        for note in run.manifest["identity"]["not_covered"]:
            say(console, f"its changes would not be seen: {note}")
        return run
    if options.first is None:
        begun = Run.open(options.resume)
        for note in check_unchanged(recipe, registry, datasets, begun):
            say(console, note)
        return Run.reopen(options.resume, take_over=options.take_over)
    run = Run.reopen(options.resume, redo=True, take_over=options.take_over)
    # before the new fingerprint is written: a kill in between must not pass old stages
    # off
    pipeline.set_aside(recipe, run.folder, options.first)
    run.update(**provenance.of_run(recipe, registry, datasets).record())
    return run


def create_run(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    root: Path | None = None,
    folder: Path | None = None,
) -> Run:
    """Make the run folder with recipe, diff and manifest."""
    config = recipe.config
    run = Run.create(
        root or Path(config.output.root),
        config.name,
        folder,
        method=config.method,
        seed=config.seed,
        **provenance.of_run(recipe, registry, datasets).record(),
        versions=here.versions(),
        git=here.git_state(recipe.path.parent),
        hardware=here.hardware(),
        kits={kit.name: str(kit.root) for kit in registry.kits},
    )
    run.write("diff.yaml", to_yaml(as_recipe(diff_against_parent(recipe))))
    # the last file: a folder that has it can be resumed
    run.write("recipe.yaml", to_yaml(recipe.resolved))
    return run


def check_unchanged(
    recipe: Recipe, registry: Registry, datasets: Datasets, begun: Run
) -> list[str]:
    """Refuse to go on with a run whose data, plugins or versions have changed since.

    Returns:
        What cannot be told.

    Raises:
        InputError: what has changed, each part by its name.
    """
    now = provenance.of_run(recipe, registry, datasets)
    if changed := provenance.changes(begun.manifest, now):
        resumed = kits.command(registry.kits, "run", "--resume", begun.folder)
        stage = f", or at the first stage concerned: {resumed} --from STAGE"
        anew = kits.command(registry.kits, "run", begun.folder / "recipe.yaml")
        raise InputError(
            f"{begun.folder} was begun with other data, plugins or versions than are"
            f" here now ({'; '.join(changed)}), so going on would mix two experiments;"
            f" start anew: {anew}" + (stage if recipe.stages else "")
        )
    if not provenance.is_old(begun.manifest):
        return []
    return [
        f"{begun.folder} was begun by {provenance.OLD}; its data and versions agree"
    ]


def _work(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    options: Options,
    console: Console,
    run: Run,
) -> dict[str, Any] | None:
    config, resume = recipe.config, options.resume is not None
    if isinstance(config, Pipeline):
        datasets.release()  # each stage reads its own
        with run.recorded():
            return pipeline.execute(recipe, registry, console, run, only=options.only)
    if isinstance(config, ExpertIteration):
        datasets.release()
        with run.recorded():
            return iterate.execute(recipe, registry, console, run)
    if config.launch.processes > 1 and options.join is None:
        datasets.release()
        launch.processes(config.launch.processes, run, registry, resume=resume)
        return None
    watchers = Watchers.of(recipe, registry, run)
    try:
        with run.recorded(), stops.watched(recipe.stage, registry, run):
            return training.execute(
                recipe,
                registry,
                datasets,
                console,
                run,
                watchers,
                resume=resume or options.goes_on,
            )
    finally:
        watchers.run_finished(run.status)
