"""Run a sweep's jobs: fill the slots, watch, stop what collapses, and leave every state
on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import recipe
from alignkit.data.datasets import Datasets
from alignkit.executors import LostError, Task
from alignkit.recipe import to_yaml
from alignkit.recipe.tree import Node, Origin
from alignkit.run import Run, atomic_write
from alignkit.sweep import jobs
from alignkit.sweep.jobs import Job, Sweep
from alignkit.sweep.spec import put

if TYPE_CHECKING:
    from alignkit.executors import Workers
    from alignkit.plugins import Registry

POLL = 0.5  # seconds
PATIENCE = 60.0  # seconds a cancelled run gets to write its state
TRIES = 3  # of a task whose worker is lost each time


class Runner:
    """Runs what waits in a sweep. A failed job does not stop the others."""

    def __init__(
        self,
        sweep: Sweep,
        executor: Workers,
        registry: Registry,
        changed: Callable[[Job], None],
    ) -> None:
        self.sweep = sweep
        self.executor = executor
        self.registry = registry
        self.changed = changed  # told of every job whose status changes
        self.handles: dict[str, Any] = {}
        # rows seen when a job's rules were last looked at
        self.logged: dict[str, int] = {}
        self.lost: dict[str, int] = {}  # how often a job's worker was

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Work until no job waits or runs; `tick` is called at every poll.

        Raises:
            KeyboardInterrupt: after the running jobs were interrupted and have written
                their state.
        """
        try:
            while self.sweep.of("waiting") or self.sweep.of("running"):
                for job in self.sweep.of("running"):
                    self._watch(job)
                self._fill()
                tick()
                time.sleep(POLL)
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def _fill(self) -> None:
        for job in self.sweep.of("waiting"):
            if len(self.sweep.of("running")) >= self.executor.slots:
                return
            if (
                self.sweep.budget in ("tokens", "seconds")
                and job.variant != self.sweep.base
            ):
                base = next(
                    j
                    for j in self.sweep.jobs
                    if (j.variant, j.seed) == (self.sweep.base, job.seed)
                )
                if base.status in ("failed", "stalled", "collapsed"):
                    self._set(
                        job,
                        "failed",
                        "the base did not finish, so there is no budget of"
                        f" {self.sweep.budget}",
                    )
                    continue
                if base.status != "done":
                    continue
                self._give_budget(job, base)
            if job.status == "waiting":
                self._start(job)

    def _start(self, job: Job) -> None:
        folder = Path(job.run)
        if (folder / "manifest.json").is_file():
            status = Run.open(folder).status
            # a job that outlived the sweep that started it
            if status == "done" or (status == "running" and job.name not in self.lost):
                self._set(job, "done" if status == "done" else "running")
                return
        task = Task(
            job.name,
            (self.sweep.folder / job.recipe).resolve(),
            folder,
            self._log(job).resolve(),
            take_over=job.name in self.lost,
        )
        self.handles[job.name] = self.executor.submit(task)
        self._set(job, "running")

    def _watch(self, job: Job) -> None:
        handle = self.handles.get(job.name)
        code, gone = None, ""
        try:
            code = self.executor.poll(handle) if handle is not None else None
        except LostError as error:
            gone = str(error)
        folder, status = Path(job.run), "missing"
        if (folder / "manifest.json").is_file():
            status = Run.open(folder).status
        if gone and status != "done":
            self.lost[job.name] = self.lost.get(job.name, 0) + 1
            again = self.lost[job.name] < TRIES
            next_one: jobs.Status = "waiting" if again else "failed"
            self._set(job, next_one, f"lost: {gone}")
        elif handle is not None and code is None and not gone:
            self._stop_if_collapsed(job)
        elif status == "done":
            self._set(job, "done")
        elif handle is None and status == "died":  # of an earlier sweep, elsewhere
            self._set(job, "waiting")
        # without a handle: `running` is a process of an earlier sweep, still at it
        elif status != "running":
            lost: jobs.Status = "stalled" if status == "stalled" else "failed"
            self._set(job, lost, self._why(job, code))

    def _why(self, job: Job, code: int | None) -> str:
        """The run's own words, or the last line it wrote."""
        manifest = Path(job.run) / "manifest.json"
        said = Run.open(job.run).manifest.get("error") if manifest.is_file() else None
        log, lines = self._log(job), [""]
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next(
            (line.strip() for line in reversed(lines) if line.strip()), "no output"
        )
        return f"{said or last} (exit code {code}; {log})"

    def _stop_if_collapsed(self, job: Job) -> None:
        if not self.sweep.stop or job.note:
            return
        logged = jobs.rows(job)
        if len(logged) == self.logged.get(job.name, 0):
            return
        self.logged[job.name] = len(logged)
        for rule in self.sweep.stop:
            if jobs.breaks(job, rule, logged):
                job.note = f"stopped at step {logged[-1]['step']}: {rule}"
                handle = self.handles.pop(job.name)
                self._cancel({job.name: handle})
                self._set(job, "collapsed", job.note)
                return

    def _give_budget(self, job: Job, base: Job) -> None:
        """Write into the job's recipe what the base of the same seed has spent; it may
        have been run before.
        """
        logged = jobs.rows(base)
        spent: float = max(int(row.get("tokens", 0)) for row in logged)
        if self.sweep.budget == "seconds":
            begun = [row for row in logged if row["step"] == 0][-1:] or logged[:1]
            trained = [
                row for row in logged if any(key.startswith("train/") for key in row)
            ]
            spent = round(trained[-1]["seconds"] - begun[0]["seconds"], 3)
        file = self.sweep.folder / job.recipe
        change = put(
            Node({}, Origin(str(file))),
            ("budget", str(self.sweep.budget)),
            Node(spent, Origin(str(file))),
        )
        loaded = recipe.load(file, registry=self.registry, change=change)
        atomic_write(file, to_yaml(loaded.resolved))
        earlier = jobs.finished_runs(self.sweep.folder.parent)
        jobs.reuse(job, loaded, Datasets(self.registry), earlier)
        if job.status == "done":
            self._set(job, "done")

    def _interrupt(self) -> None:
        self._cancel(self.handles)
        for job in self.sweep.of("running"):
            job.status = "waiting"
        self.sweep.save()

    def _cancel(self, handles: dict[str, Any]) -> None:
        """Interrupt jobs and wait until they have gone."""
        for handle in handles.values():
            self.executor.cancel(handle)
        end = time.monotonic() + PATIENCE
        while (
            any(self._works(handle) for handle in handles.values())
            and time.monotonic() < end
        ):
            time.sleep(0.1)
        for handle in handles.values():
            if self._works(handle):
                self.executor.cancel(handle)

    def _works(self, handle: Any) -> bool:
        try:
            return self.executor.poll(handle) is None
        except LostError:
            return False

    def _set(self, job: Job, status: jobs.Status, note: str = "") -> None:
        job.status, job.note = status, note
        if status != "running":
            self.handles.pop(job.name, None)
        self.sweep.save()
        self.changed(job)

    def _log(self, job: Job) -> Path:
        return self.sweep.folder / "logs" / f"{job.name}.log"
