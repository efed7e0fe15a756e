"""Jobs of Slurm, through submitit: `--executor slurm --slurm partition=gpu`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alignkit import (
    Executor,
    LostError,
    Task,
    Workers,
    asks_for,
    echo,
    hookimpl,
)

FOREVER = 60 * 24 * 365  # minutes of submitit's own executor on this machine
QUEUED = 1000  # jobs that are handed over at once; Slurm decides when they begin


class SlurmWorkers:
    """A job each; Slurm requeues what it preempts, and the run goes on by --resume."""

    def __init__(self, slots: int, processes: int, settings: dict[str, Any]) -> None:
        self.slots = slots
        self._processes = processes
        self._cluster = settings.pop("cluster", "slurm")
        self._settings = settings
        self._shown = False
        self._cancelled: set[str] = set()

    def submit(self, task: Task) -> Any:
        """Submit a job; its script is kept beside the log, and the first is printed."""
        from submitit import AutoExecutor

        from ._slurm_job import Work

        home, forever = (
            task.log.with_suffix(".slurm"),
            {"slurm_max_num_timeout": QUEUED},
        )
        made = AutoExecutor(home, cluster=self._cluster, **forever)
        if self._cluster == "local":
            made.update_parameters(timeout_min=FOREVER, name=task.name)
        else:
            own = {f"slurm_{key}": value for key, value in self._settings.items()}
            made.update_parameters(name=task.name, **own)
        job = made.submit(Work(task, self._processes))
        script = job.paths.submission_file
        if script.is_file() and not self._shown:
            self._shown = True
            echo(f"{script}:\n{script.read_text()}", err=True)
        echo(f"{task.name}: {self._cluster} job {job.job_id}, in {home}", err=True)
        return job

    def poll(self, handle: Any) -> int | None:
        """The exit code of the run; lost where the job left none."""
        if not handle.done():
            return None
        if handle.paths.result_pickle.exists():
            error = handle.exception()
            if error is not None:
                raise LostError(str(error).strip().splitlines()[-1])
            code = int(handle.result())
            queue = handle.watcher if self._cluster == "slurm" else None
            # stopped by Slurm, which requeues it
            waits = code == 143 and queue and not queue.is_done(handle.job_id)
            return None if waits else code
        if handle.job_id in self._cancelled:
            return 143
        raise LostError(f"job {handle.job_id} ended without a result: {handle.state}")

    def cancel(self, handle: Any) -> None:
        """scancel, which asks and, as Slurm is set up, kills half a minute later."""
        self._cancelled.add(handle.job_id)
        handle.cancel(check=False)


def slurm(
    *, jobs: int | None = None, processes: int = 1, slurm: dict[str, str] | None = None
) -> Workers:
    """`--slurm KEY=VALUE`: a parameter of submitit's Slurm executor."""
    try:
        from ._slurm_job import checked
    except ImportError as error:
        raise asks_for("submitit", "slurm", "--executor slurm") from error
    return SlurmWorkers(jobs or QUEUED, processes, checked(slurm or {}, processes))


@hookimpl
def align_executors() -> Iterable[Executor]:
    yield Executor("slurm", slurm)
