"""Several training processes on one machine, by torch's own launcher."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from alignkit.errors import StallError, WorkError
from alignkit.run import Run, deadlines
from alignkit.train.children import wait

if TYPE_CHECKING:
    from alignkit.plugins import Registry


def processes(count: int, run: Run, registry: Registry, *, resume: bool) -> None:
    """Train the recipe of a run folder in `count` processes and wait for them.

    Raises:
        WorkError: one of them failed; its message is in the run's log.
        StallError: one of them hung.
    """
    python = [sys.executable, "-P"]  # nothing of the current folder is imported
    command = [
        *python,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={count}",
        "--no-python",
    ]
    command += [
        *python,
        "-m",
        "alignkit.cli",
        "run",
        str(run.folder / "recipe.yaml"),
        "--join",
        str(run.folder),
    ]
    command += ["--continue"] if resume else []
    run.share()
    try:
        # the training processes see its end when this one is gone: `end_with_parent`
        code = wait(subprocess.Popen(command, stdin=subprocess.PIPE))
        finished = Run.open(run.folder)
        if finished.manifest["status"] == "interrupted":
            raise KeyboardInterrupt
        if finished.status == "stalled":
            said = deadlines.text_of(run.folder)
            finished.update(status="stalled", error=said)
            raise StallError(said)
        if finished.manifest["status"] == "running":
            finished.finish(
                "failed", error=f"the training processes ended with exit code {code}"
            )
    except KeyboardInterrupt:
        finished = Run.open(run.folder)
        if finished.manifest["status"] == "running":
            finished.finish("interrupted")
        raise
    finally:
        run.release()
    # libraries abort while the interpreter is torn down: a run that is done is done
    if code and finished.manifest["status"] != "done":
        raise WorkError(
            f"{finished.manifest.get('error')}\nthe log: {run.folder / 'log.txt'}"
        )
