"""`align sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignkit.cli import sweep_shown
from alignkit.cli.common import (
    allow_option,
    console,
    json_option,
    kit_option,
    kits_asked_for,
    load_registry,
    locate,
    print_json,
    tell_file,
)
from alignkit.cli.executing import Choice, executor_options
from alignkit.errors import InputError
from alignkit.run import stopping
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.executors import Workers
    from alignkit.plugins import Registry
    from alignkit.sweep.check import Checked
    from alignkit.sweep.jobs import Job, Sweep


@click.command()
@click.argument("target", metavar="[FILE|RECIPE]", required=False)
@click.option(
    "--with",
    "overlays",
    multiple=True,
    metavar="FILE",
    help="Merge an overlay into the base (repeatable).",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=A,B",
    help="Vary one key of a recipe, or fix it to one value.",
)
@click.option("--seeds", metavar="N|A,B", help="The seeds 0 to N-1, or these seeds.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Runs at a time (default: one per GPU, without a GPU one).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the sweep's folder is made (default: runs/).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything and print the table of differences; run nothing.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="SWEEP",
    help="Go on with what is missing.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="With --resume: also when it cannot be told whether the sweep's process, on"
    " another machine, still lives.",
)
@executor_options
@kit_option
@allow_option
@json_option
def sweep(
    target: str | None,
    overlays: tuple[str, ...],
    sets: tuple[str, ...],
    seeds: str | None,
    jobs: int | None,
    out: Path | None,
    dry_run: bool,
    resume: Path | None,
    take_over: bool,
    executor: Choice,
    kit: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run every variant of a sweep FILE, or of a RECIPE varied by --set, with every
    seed; then compare them.

    Variants are checked before the first starts. Each run has its own folder and
    process; what has been run already with the same fingerprint is reused.
    """
    from alignkit import kits
    from alignkit.sweep import jobs as states

    if (target is None) == (resume is None):
        raise InputError(
            "name a sweep file or a recipe, or a sweep to --resume (and not both)"
        )
    screen = console(as_json)
    if not screen.is_terminal:
        screen.width = 240  # a pipe has no width of its own
    if resume is not None:
        if overlays or sets or seeds or out or dry_run:
            raise InputError(
                "--resume goes on with the sweep as it was started; only --jobs, --kit,"
                " --json and the executor's flags apply"
            )
        registry = load_registry((), kit)
        with kits_asked_for(resume / "sweep.json", registry):
            states.demand_plugins(resume, registry)
        workers = executor.open(registry, jobs, states.processes(resume))
        state, made = states.reopen(resume, take_over=take_over)
        states.go_on(state, made, registry)
    else:
        checked, registry = _check(str(target), overlays, sets, seeds, kit)
        root = out or Path(
            next(iter(checked.variants[0].recipes.values())).config.output.root
        )
        if not as_json:
            screen.print(sweep_shown.differences(checked))
        if dry_run:
            if as_json:
                print_json(checked.plan())
            return 0
        first = next(iter(checked.variants[0].recipes.values()))
        workers = executor.open(registry, jobs, first.config.launch.processes)
        state, made = states.create(checked, registry, root)
    again = kits.command(
        registry.kits, "sweep", "--resume", state.folder, *executor.flags
    )
    say(screen, f"sweep folder: {state.folder}")
    for note in state.notes:
        say(screen, note)
    try:
        with made.alive():
            _work(state, registry, workers, screen)
    except KeyboardInterrupt:
        made.finish("interrupted")
        say(screen, f"interrupted; to go on: {again}")
        return stopping.exit_code()
    lost = state.of("failed") + state.of("stalled")
    made.finish("failed" if lost else "done")
    _report(state, screen, as_json)
    for job in lost:
        say(screen, f"{job.status}: {job.name}: {job.note}", style="red")
    if lost:
        say(screen, f"to try these again: {again}")
    return 1 if lost else 0


def _check(
    target: str,
    overlays: tuple[str, ...],
    sets: tuple[str, ...],
    seeds: str | None,
    kit: tuple[str, ...],
) -> tuple[Checked, Registry]:
    from alignkit.sweep import check, spec

    path = locate(target)
    tell_file(path)
    found = [locate(overlay) for overlay in overlays]
    read = spec.read if spec.is_sweep_file(path) else spec.from_recipe
    varied = read(path, seeds=spec.seeds_of(seeds), overlays=found, sets=sets)
    registry = load_registry([path, varied.base], kit)
    return check.check_sweep(varied, registry), registry


def _work(state: Sweep, registry: Registry, workers: Workers, screen: Console) -> None:
    from alignkit.sweep.runner import Runner

    reused = [job for job in state.jobs if job.reused]
    say(
        screen,
        f"{len(state.jobs)} runs ({len(state.variants)} variants),"
        f" {len(state.of('done'))} done already ({len(reused)} of them in earlier"
        f" sweeps or runs), {workers.slots} at a time",
    )
    if not screen.is_terminal:
        Runner(state, workers, registry, lambda job: _line(job, screen)).run()
        return
    from rich.live import Live

    with Live(console=screen, refresh_per_second=2, transient=True) as live:
        Runner(state, workers, registry, lambda job: None).run(
            lambda: live.update(sweep_shown.progress(state))
        )


def _line(job: Job, screen: Console) -> None:
    note = f": {job.note}" if job.note else ""
    say(screen, f"{job.status} {job.name}{note}")


def _report(state: Sweep, screen: Console, as_json: bool) -> None:
    """Compare what is done; a comparison that is refused does not undo the sweep."""
    from alignkit.cli.compare import show

    if not state.of("done"):
        return
    try:
        show([state.folder], allow_missing=True, style="json" if as_json else "table")
    except InputError as error:
        say(screen, f"not compared: {error}")
    say(screen, f"to compare again: align compare {state.folder}")
