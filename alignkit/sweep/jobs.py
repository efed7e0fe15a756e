"""A sweep's folder and its jobs: one run of one variant with one seed each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignkit import kits, provenance, recipe
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, listing
from alignkit.recipe import ABSENT, to_yaml
from alignkit.run import Run, atomic_write, write_json
from alignkit.run.files import read_json
from alignkit.sweep.spec import Rule

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.sweep.check import Checked

Status = Literal["waiting", "running", "done", "failed", "stalled", "collapsed"]


@dataclass
class Job:
    """One run. `run` is its folder, which may lie elsewhere when an earlier run of the
    same fingerprint is reused.
    """

    variant: str
    seed: int
    recipe: str  # the resolved recipe's file, relative to the sweep's folder
    run: str
    steps: int | None = None
    status: Status = "waiting"
    reused: bool = False
    note: str = ""  # why it failed, or what rule stopped it

    @property
    def name(self) -> str:
        """As its files are named."""
        return f"{self.variant}-seed{self.seed}"


@dataclass
class Sweep:
    """The state of a sweep, kept in its folder's sweep.json."""

    folder: Path
    name: str
    base: str  # the variant that the others are compared with
    metric: str
    variants: dict[str, dict[str, Any]]  # label: {dotted key: value}, what it changes
    jobs: list[Job]
    budget: str | None = None
    stop: list[Rule] = field(default_factory=list)
    kits: list[str] = field(default_factory=list)  # told, never mounted
    processes: int = 1
    notes: list[str] = field(default_factory=list)  # of this call alone

    def save(self) -> None:
        """Write sweep.json."""
        plain = {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("folder", "jobs", "stop", "notes")
        }
        plain["stop"] = [rule.model_dump(exclude_none=True) for rule in self.stop]
        write_json(
            self.folder / "sweep.json",
            {**plain, "jobs": [asdict(job) for job in self.jobs]},
        )

    def of(self, status: Status) -> list[Job]:
        """The jobs of one status."""
        return [job for job in self.jobs if job.status == status]


def create(checked: Checked, registry: Registry, root: Path) -> tuple[Sweep, Run]:
    """Make the sweep's folder, with the resolved recipe of every job; what has been run
    already is reused.
    """
    spec = checked.spec
    run = Run.create(root, spec.name, method="sweep")
    first = next(iter(checked.variants[0].recipes.values()))
    sweep = Sweep(
        run.folder,
        spec.name,
        checked.variants[0].label,
        checked.metric,
        {
            v.label: {d.key: None if d.b is ABSENT else d.b for d in v.differences}
            for v in checked.variants
        },
        [],
        spec.budget,
        list(spec.stop),
        [str(kit.root) for kit in registry.kits if kit.name != kits.BUILTIN],
        first.config.launch.processes,
    )
    earlier, datasets = finished_runs(root), Datasets(registry)
    # Seed by seed, so that every variant has been seen once before any is seen twice.
    for seed in checked.variants[0].recipes:
        for variant in checked.variants:
            job = Job(
                variant.label,
                seed,
                f"recipes/{variant.label}-seed{seed}.yaml",
                "",
                variant.steps,
            )
            job.run = str((run.folder / "runs" / job.name).resolve())
            # What the others may spend is known once the base has run.
            awaits_base = (
                spec.budget in ("tokens", "seconds")
                and variant is not checked.variants[0]
            )
            if not awaits_base:
                reuse(job, variant.recipes[seed], datasets, earlier)
            atomic_write(
                run.folder / job.recipe, to_yaml(variant.recipes[seed].resolved)
            )
            sweep.jobs.append(job)
    if old := sum(provenance.is_old({"fingerprint": text}) for text in earlier):
        sweep.notes.append(
            f"not reused: {old} of the finished runs in {root}, of {provenance.OLD}"
        )
    sweep.save()
    return sweep, run


def reopen(folder: Path, *, take_over: bool = False) -> tuple[Sweep, Run]:
    """A sweep to go on with: what is done or collapsed stays, everything else waits
    again.

    Raises:
        InputError: no sweep, or another process is at work on it.
    """
    _read(folder)  # says so when it is damaged, before anything is changed
    run = Run.reopen(folder, redo=True, take_over=take_over)
    sweep = _read(folder)
    for job in sweep.jobs:
        if job.status in ("running", "failed", "stalled"):
            job.status, job.note = "waiting", ""
    sweep.save()
    return sweep, run


def processes(folder: Path) -> int:
    """The training processes of each of a sweep's runs."""
    return _read(folder).processes


def demand_plugins(folder: Path, registry: Registry) -> None:
    """Refuse to go on with a sweep whose recipes the plugins that are here do not fit.

    Raises:
        InputError: what the first such recipe lacks.
    """
    for job in _read(folder).jobs:
        if job.status not in ("done", "collapsed"):
            recipe.load(folder / job.recipe, registry=registry)


def _read(folder: Path) -> Sweep:
    path = folder / "sweep.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is no sweep: it has no sweep.json; sweeps are made by `align"
            " sweep`"
        )
    try:
        state = read_json(path)
        stop = [Rule.model_validate(rule) for rule in state.pop("stop")]
        jobs = [Job(**job) for job in state["jobs"]]
        return Sweep(folder=folder, **{**state, "stop": stop, "jobs": jobs})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged: {type(error).__name__}: {error}"
        ) from error


def go_on(sweep: Sweep, made: Run, registry: Registry) -> None:
    """Start to work on a reopened sweep.

    Raises:
        InputError: something waits, and what is done was done with other data, plugins
            or versions than are here now.
    """
    changed: dict[str, list[str]] = {}
    old, datasets = 0, Datasets(registry)
    for job in sweep.of("done") + sweep.of("collapsed"):
        if not sweep.of("waiting") or not (Path(job.run) / "manifest.json").is_file():
            continue
        loaded = recipe.load(sweep.folder / job.recipe, registry=registry)
        manifest = Run.open(job.run).manifest
        old += provenance.is_old(manifest)
        now = provenance.of_run(loaded, registry, datasets)
        datasets.release()  # the hashes are enough
        for text in provenance.changes(manifest, now):
            changed.setdefault(text, []).append(job.name)
    if changed:
        made.finish("interrupted")
        raise InputError(
            *(
                f"{text} since these were run: {listing(jobs, 3)}"
                for text, jobs in changed.items()
            ),
            f"so going on with {sweep.folder} would compare two experiments; start the"
            " sweep anew",
        )
    if old:
        sweep.notes.append(f"{old} runs were done by {provenance.OLD}; they are kept")
    sweep.save()


def reuse(
    job: Job, loaded: Recipe, datasets: Datasets, earlier: dict[str, Path]
) -> None:
    """Take over an earlier run that did the same."""
    now = provenance.of_run(loaded, datasets.registry, datasets)
    datasets.release()  # the hashes are enough
    if now.text in earlier:
        job.run, job.status, job.reused = str(earlier[now.text].resolve()), "done", True


def finished_runs(root: Path) -> dict[str, Path]:
    """The finished runs in `root` and in the sweeps there, by fingerprint."""
    folders = {}
    for manifest in sorted(
        [*root.glob("*/manifest.json"), *root.glob("*/runs/*/manifest.json")]
    ):
        try:
            run = Run.open(manifest.parent)
        except InputError:
            # damaged: it is no finished run, and `align compare` will say so when it is
            # named
            continue
        if run.manifest.get("status") == "done" and "fingerprint" in run.manifest:
            folders[run.manifest["fingerprint"]] = manifest.parent
    return folders


def rows(job: Job) -> Sequence[dict[str, Any]]:
    """What the job's run has logged so far."""
    return Run(_at_work(job), {}).metrics()


def breaks(job: Job, rule: Rule, logged: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a job's run breaks a rule, by what it has logged or by the alarms that it
    has noted itself.
    """
    if rule.metric is not None:
        logs = [row[rule.metric] for row in logged if rule.metric in row]
        return rule.broken_by(
            [float(v) if isinstance(v, int | float) else math.nan for v in logs]
        )
    alarms = Run.open(_at_work(job)).manifest.get("alarms", [])
    return [rule.check, "stop"] in [[each["check"], each["level"]] for each in alarms]


def _at_work(job: Job) -> Path:
    """Where the job's run logs: of a pipeline in its newest stage."""
    folder = Path(job.run)
    stages = sorted(
        folder.glob("stages/*/manifest.json"), key=lambda path: path.stat().st_mtime
    )
    return stages[-1].parent if job.steps is None and stages else folder
