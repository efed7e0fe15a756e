"""What runs inside a job of Slurm, and what may be said of one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

# A job's end or preemption is announced to all of its processes; USR2 asks those of
# alignkit for their stacks. Read by submitit when it is imported.
os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")

from submitit.helpers import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from alignkit import InputError, LocalWorkers, MissingError, Task

CLUSTERS = ("slurm", "local")  # of submitit: Slurm, or processes here


class Work:
    """A run as a job: begun, or gone on with where it was begun."""

    def __init__(self, task: Task, processes: int) -> None:
        self.task = task
        self.processes = processes
        self.handle: Any = None  # of the run's process

    def __call__(self) -> int:
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":  # its node failed
            self.task = dataclasses.replace(self.task, take_over=True)
        self.workers = LocalWorkers(1, self.processes, tied=True)
        self.handle = self.workers.submit(self.task)
        while (code := self.workers.poll(self.handle)) is None:
            time.sleep(0.2)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """The job is about to be preempted or out of time: stop the run, which saves,
        and go on in the next one.
        """
        if self.handle is not None:
            self.workers.cancel(self.handle)
            while self.workers.poll(self.handle) is None:
                time.sleep(0.2)
        again = dataclasses.replace(self.task, take_over=True)
        return DelayedSubmission(Work(again, self.processes))


def checked(stated: Mapping[str, str], processes: int) -> dict[str, Any]:
    """The settings as submitit takes them.

    Raises:
        InputError: a key that it has not, a value that cannot be.
        MissingError: there is no Slurm here.
    """
    known = sorted({*SlurmExecutor._valid_parameters(), "cluster"} - {"setup"})
    for key in stated:
        if key not in known:
            raise InputError(
                f"--slurm {key}={stated[key]}: there is no such key; known:"
                f" {', '.join(known)}"
            )
    cluster = stated.get("cluster", "slurm")
    if cluster not in CLUSTERS:
        raise InputError(f"--slurm cluster={cluster}: expected {' or '.join(CLUSTERS)}")
    if cluster == "slurm" and not stated.get("time", "").isdecimal():
        raise InputError(
            "--executor slurm: say how many minutes a job may take: --slurm time=120"
        )
    if (
        processes > 1
        and cluster == "slurm"
        and not {"gpus_per_node", "gres"} & {*stated}
    ):
        raise InputError(
            f"--executor slurm: the recipe has {processes} training processes; say"
            f" --slurm gpus_per_node={processes}"
        )
    if cluster == "slurm" and shutil.which("srun") is None:
        raise MissingError(
            "--executor slurm: there is no srun here; submit from a login node, or try"
            " it on this machine: --slurm cluster=local"
        )
    return {k: int(v) if v.isdecimal() else v for k, v in stated.items()}
