"""One run on a node of Ray: an actor that starts it as a process, tells how far it is,
and hands over what it wrote where the node does not share our file system.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from alignkit import LocalWorkers, Task

LIVE = ("manifest.json", "metrics.jsonl")  # read of a run while it goes on
PIECE = 64 * 2**20  # bytes handed over at a time

# Of our environment, what a node has not of itself. No keys: Ray shows what it is told.
HANDED_ON = (
    "ALIGN_DATA",
    "ALIGN_KITS",
    "ALIGN_MOUNTS",
    "HF_HUB_OFFLINE",
    "OMP_WAIT_POLICY",
    "TOKENIZERS_PARALLELISM",
)


def environment() -> dict[str, str]:
    """What is handed on to a node."""
    return {name: os.environ[name] for name in HANDED_ON if name in os.environ}


class Work:
    """Starts the task when it is made; its process ends with this one."""

    def __init__(
        self,
        task: Task,
        recipe: bytes,
        processes: int,
        environment: Mapping[str, str],
    ) -> None:
        os.environ.update(environment)
        # the same path with the same bytes: the same file system
        self.shared = task.recipe.is_file() and task.recipe.read_bytes() == recipe
        if not self.shared:
            self.scratch = Path(tempfile.mkdtemp(prefix="align-"))
            task = dataclasses.replace(
                task,
                recipe=self.scratch / "recipe.yaml",
                folder=self.scratch / "run",
                log=self.scratch / "log.txt",
            )
            task.recipe.write_bytes(recipe)
        self.task = task
        self.told: dict[str, bytes] = {}
        self.workers = LocalWorkers(1, processes, tied=True)
        self.handle = self.workers.submit(task)

    def poll(self) -> tuple[int | None, dict[str, bytes]]:
        """The exit code, and what has changed of the files that are read meanwhile; the
        log is called "".
        """
        code = self.workers.poll(self.handle)
        if self.shared:
            return code, {}
        files = {"": self.task.log, **{n: self.task.folder / n for n in LIVE}}
        now = {n: file.read_bytes() for n, file in files.items() if file.is_file()}
        news = {n: text for n, text in now.items() if self.told.get(n) != text}
        self.told.update(news)
        return code, news

    def stop(self) -> None:
        """Ask the run to stop; a second time, kill its process group."""
        self.workers.cancel(self.handle)

    def pack(self) -> int:
        """Pack what the run wrote; the bytes there are to `piece`, 0 where nothing is."""
        if self.shared or not self.task.folder.is_dir():
            return 0
        packed = self.scratch / "run.tar"
        with tarfile.open(packed, "w") as tar:
            tar.add(self.task.folder, ".")
        return packed.stat().st_size

    def piece(self, start: int) -> bytes:
        """A part of what was packed."""
        with (self.scratch / "run.tar").open("rb") as packed:
            packed.seek(start)
            return packed.read(PIECE)

    def clean(self) -> None:
        """Leave nothing on the node."""
        if not self.shared:
            shutil.rmtree(self.scratch, ignore_errors=True)


def unpack(packed: Path, folder: Path) -> None:
    """Put what a run wrote in its place."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    packed.unlink()
