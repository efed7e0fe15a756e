"""Parts of a run in processes of their own, so that their memory is free for the next."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit import kits
from alignkit.errors import MissingError, StallError, WorkError
from alignkit.run import Run, atomic_write, life

if TYPE_CHECKING:
    from alignkit.plugins import Registry


def run_stage(
    name: str, file: Path, inside: Path, registry: Registry, resume: Path
) -> None:
    """Train the recipe `file` in the run folder `inside`, in a process of its own; go
    on where one was begun.

    Raises:
        WorkError: it failed; `resume` is the run to resume once the cause is mended.
    """
    begun = (inside / "recipe.yaml").is_file()
    if not begun:  # killed before its recipe, the last of its first files, was written
        shutil.rmtree(inside, ignore_errors=True)
    # its pipeline was killed a moment ago, and it is about to notice
    while begun and _lives(inside):
        time.sleep(0.2)
    if begun and status(inside) == "done":
        return
    if begun:  # the whole may have been moved since
        atomic_write(inside / "recipe.yaml", file.read_bytes())
    where = (
        ["--resume", str(inside), "--take-over"]
        if begun
        else [str(file), "--folder", str(inside)]
    )
    try:
        child(
            ["run", "--stage", *where],
            registry,
            f"stage {name}",
            inside / "log.txt",
            resume,
            done=lambda: status(inside) == "done",
        )
    except (WorkError, MissingError) as error:
        if status(inside) == "stalled":
            raise StallError(str(error)) from error
        raise


def child(
    arguments: Sequence[str],
    registry: Registry,
    what: str,
    log: Path,
    resume: Path,
    *,
    done: Callable[[], bool] = lambda: False,
) -> None:
    """Run an align command in a process of its own, which has the kits that are mounted
    here, and imports nothing of the current folder. It ends when this process is killed.

    `done`: whether its work is done, however it ended: libraries abort, and signals
    kill, while the interpreter is torn down.

    Raises:
        WorkError: it failed. MissingError: it lacked something, such as room on the
            disk. KeyboardInterrupt: it was interrupted.
    """
    # The child sees its standard input end when this process is gone: see
    # `end_with_parent`.
    command = [sys.executable, "-P", "-m", "alignkit.cli", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    code = wait(process)
    if code and done():
        return
    if code in (130, 143):
        raise KeyboardInterrupt
    if code:
        again = kits.command(registry.kits, "run", "--resume", resume)
        kind = MissingError if code == MissingError.exit_code else WorkError
        raise kind(
            f"{what} failed (exit {code}); its log: {log}\n"
            f"to go on from there once the cause is mended: {again}"
        )


def wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process, which is asked to stop when this one is, and then
    waited for; asked again, this one ends it.
    """
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
            process.wait()
        raise


def end_with_parent() -> None:
    """End this process, as by kill -9, when the one that started it by `child` is gone.

    Else a killed pipeline would leave a stage at work, beside the one that resumes it.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _lives(folder: Path) -> bool:
    manifest = Run.open(folder).manifest
    return manifest.get("status") == "running" and life.lives(manifest) is True


def status(folder: Path) -> str | None:
    """The status of the run in a folder, if there is one."""
    return Run.open(folder).status if (folder / "manifest.json").is_file() else None
