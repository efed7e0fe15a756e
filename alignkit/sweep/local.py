"""Processes on this machine: what every executor starts in the end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignkit.executors import Task
from alignkit.machine.gpus import visible
from alignkit.run import writing


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    devices: str | None
    asked: bool = False


class LocalWorkers:
    """Processes on this machine, each in a process group of its own and with GPUs of
    its own.

    Args:
        slots: how many run at once; by default one per GPU (or per `processes` GPUs),
            without a GPU one.
        processes: training processes of one job, each of which takes a GPU.
        tied: they end when this process is gone, however it ended.
    """

    def __init__(
        self, slots: int | None = None, processes: int = 1, *, tied: bool = False
    ) -> None:
        self._tied = tied
        gpus = visible()
        groups = [
            ",".join(gpus[i : i + processes])
            for i in range(0, len(gpus) - processes + 1, processes)
        ]
        self.slots = slots if slots is not None else max(1, len(groups))
        # More slots than GPUs: they share.
        self._free: list[str | None] = [
            groups[i % len(groups)] if groups else None for i in range(self.slots)
        ]

    def submit(self, task: Task) -> _Process:
        """Start a task on the next free devices."""
        tied = ["--tied"] if self._tied else []
        return self.start([*task.command(), *tied], task.log)

    def start(self, command: Sequence[str], log: Path) -> _Process:
        """Start a command whose output is appended to `log`."""
        devices = self._free.pop(0)
        environment = {**os.environ}
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = devices
        # Jobs side by side would otherwise each start a thread per core.
        environment.setdefault(
            "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.slots))
        )
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        with output:
            process = subprocess.Popen(
                command,
                # its end is the sign for what is tied
                stdin=subprocess.PIPE if self._tied else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return _Process(process, devices)

    def poll(self, handle: _Process) -> int | None:
        """The exit code, or None; a finished job's devices are free again."""
        if handle.process.returncode is not None:
            return handle.process.returncode
        code = handle.process.poll()
        if code is not None:
            self._free.append(handle.devices)
        return code

    def cancel(self, handle: _Process) -> None:
        """Ask the job to stop, which passes it on to what it has started; then kill it
        with all its processes.
        """
        if handle.process.poll() is not None:
            return
        if handle.asked:
            os.killpg(handle.process.pid, signal.SIGKILL)
        else:
            handle.process.send_signal(signal.SIGTERM)
        handle.asked = True
