"""The run folder: create, find, write, read back."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit.errors import AlignError, InputError, MissingError, StallError
from alignkit.run import life, stacks, stopping
from alignkit.run.files import (
    LogFile,
    append_jsonl,
    atomic_write,
    fresh,
    now,
    read_jsonl,
    write_json,
    writing,
)
from alignkit.run.locks import Lock, lock
from alignkit.run.manifest import read_manifest
from alignkit.run.rows import append_rows


class Run:
    """One run's folder. Only one process writes to it; on the others every write is
    left out (`writes` False).

    `held` is the lock of a run that is worked on; `finish`, `release` or the death of
    the process give it back. A run that is only read holds none.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *,
        writes: bool = True,
        held: Lock | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.writes = writes
        self._held = held
        self._writing = threading.RLock()
        self.outcome = "done"  # the status that `recorded` closes with
        self._started = time.monotonic()
        self._log: logging.Handler | None = None

    @classmethod
    def create(
        cls, root: Path, name: str, folder: Path | None = None, **manifest: Any
    ) -> Run:
        """Make `<root>/<name>-<utc time>-<short id>`, or exactly `folder`, with a
        manifest that says `running`.

        Raises:
            InputError: `folder` is there already; a run never overwrites another.
        """
        if folder is None:
            folder = fresh(root, name)
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError as error:
                raise InputError(
                    f"{folder} is there already, and a run never overwrites another;"
                    " name a new folder"
                ) from error
        run = cls(
            folder,
            {
                "name": name,
                "status": "running",
                "created": now(),
                **life.signs(),
                **manifest,
            },
            held=lock(folder),
        )
        run.update(command=[Path(sys.argv[0]).name, *sys.argv[1:]])
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open a run folder for reading.

        Raises:
            InputError: when it is not one, or its manifest is damaged.
        """
        path = Path(folder)
        manifest = path / "manifest.json"
        if not manifest.is_file():
            raise InputError(
                f"{folder} is no run folder: it has no manifest.json; runs are made by"
                " `align run`"
            )
        return cls(path, read_manifest(manifest))

    @classmethod
    def join(cls, folder: Path | str) -> Run:
        """The run of which this is one of several training processes, which share its
        lock; the first of them writes.
        """
        run = cls.open(folder)
        run._held = lock(run.folder, shared=True)
        run.writes = os.environ.get("RANK", "0") == "0"
        run.update(**life.signs())
        return run

    @classmethod
    def reopen(
        cls, folder: Path | str, *, redo: bool = False, take_over: bool = False
    ) -> Run:
        """Take over a run that was interrupted, failed or died, to go on with it; with
        `redo` also one that is done, with `take_over` also one of which it cannot be
        told whether its process lives.

        Raises:
            InputError: it is done, or another process is still at work on it, or may be.
        """
        path = cls.open(folder).folder
        # A run of 0.1 holds no lock: of its process the manifest knows.
        unlocked = not (path / ".lock").exists()
        with contextlib.ExitStack() as undo:
            held = undo.enter_context(lock(path))
            run = cls.open(path)  # as the holder before left it
            if run.status == "done" and not redo:
                raise InputError(f"{folder} is done; there is nothing to resume")
            if run.manifest.get("status") == "running":
                locked = held.real and not unlocked
                life.require_gone(path, run.manifest, locked, take_over)
            undo.pop_all()
        run._held = held
        times = [*run.manifest.get("resumed", []), now()]
        stacks.forget(path)
        run.update(
            status="running",
            **life.signs(),
            resumed=times,
            error=None,
        )
        return run

    @property
    def status(self) -> str:
        """`running`, `done`, `failed`, `interrupted`, `stalled`, or `died` without a word."""
        status = str(self.manifest.get("status"))
        if status != "running" or life.lives(self.manifest) is not False:
            return status
        # what held the interpreter could say no more
        return "stalled" if stacks.left(self.folder) else "died"

    @property
    def model(self) -> Path:
        """The folder of the final model."""
        return self.folder / "model"

    def update(self, **fields: Any) -> None:
        """Set fields of the manifest and write it."""
        with self._writing:
            self.manifest.update(fields)
            if self.writes:
                write_json(self.folder / "manifest.json", self.manifest)

    def finish(self, status: str, **fields: Any) -> None:
        """Close the run with a status and its duration in seconds."""
        timings = {
            **self.manifest.get("timings", {}),
            "total_seconds": round(time.monotonic() - self._started, 3),
        }
        self.update(status=status, finished=now(), timings=timings, **fields)
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
        self.release()

    def share(self) -> None:
        """Let the training processes of this run in: see `join`."""
        if self._held is not None:
            self._held.share()

    def release(self) -> None:
        """Give the lock back."""
        if self._held is not None:
            self._held.release()

    def write(self, name: str, text: str) -> None:
        """Write one of the run's text files."""
        if self.writes:
            atomic_write(self.folder / name, text)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl: `step`, then `train/…` and `eval/…`."""
        if not self.writes:
            return
        stamp = {"time": now(), "seconds": round(time.monotonic() - self._started, 3)}
        append_jsonl(
            self.folder / "metrics.jsonl", [{"step": row["step"], **stamp, **row}]
        )

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        return read_jsonl(path) if path.is_file() else []

    def forget_after(self, step: int, count: int | None = None) -> None:
        """Drop what was logged (after so many rows), sampled and evaluated after a
        step; evals of the untrained model are kept, finished or not.
        """
        if not self.writes:
            return
        kept = [row for row in self.metrics() if row["step"] <= step][:count]
        if kept:
            # the wall clock of the rows goes on
            self._started = time.monotonic() - kept[-1]["seconds"]
        if kept or (self.folder / "metrics.jsonl").exists():
            self.write(
                "metrics.jsonl",
                "".join(json.dumps(row, default=str) + "\n" for row in kept),
            )
        for path in (self.folder / "rollouts").glob("*-*.jsonl"):
            if int(path.name.rpartition("-")[2].partition(".")[0]) > step:
                path.unlink()
        for path in (self.folder / "evals").glob("*@*"):
            if int(path.name.rpartition("@")[2]) > max(step, 0):
                shutil.rmtree(path)
        shutil.rmtree(self.model, ignore_errors=True)

    def write_rollouts(
        self, step: int, rows: Sequence[Mapping[str, Any]], kind: str = "step"
    ) -> None:
        """Add every rollout of a step to rollouts/step-NNNNNN.jsonl; a further process
        has a file of its own.

        `kind` is `validation` for those of `data.validation`, which nothing is trained
        on.
        """
        own = "" if self.writes else f".{os.environ['RANK']}"
        append_rows(self.folder / "rollouts" / f"{kind}-{step:06d}{own}.jsonl", rows)

    def log_to_file(self) -> None:
        """Send Python's logging and warnings to log.txt."""
        handler = LogFile(
            self.folder / "log.txt", encoding="utf-8", errors="backslashreplace"
        )
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        self._log = handler

    def alive(self) -> contextlib.AbstractContextManager[None]:
        """Signs of life in the manifest, as long as this process works on the run."""
        return life.beating(self.folder / "manifest.json", self._writing, self.update)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[Run]:
        """Run the work inside, and close with its status; manifest and log say why."""
        if not self.writes:
            yield self
            return
        self.log_to_file()
        try:
            last = functools.partial(self.update, status="interrupted")
            with self.alive(), stopping.last_words(last):
                yield self
        except KeyboardInterrupt:
            self.finish("interrupted")
            raise
        except AlignError as error:
            logging.getLogger("alignkit").error("the run failed: %s", error)
            # a full disk may not take even this: the run has then died
            with contextlib.suppress(MissingError):
                status = "stalled" if isinstance(error, StallError) else "failed"
                self.finish(status, error=str(error))
            raise
        except Exception as error:
            logging.getLogger("alignkit").exception("the run failed")
            with contextlib.suppress(MissingError):
                self.finish("failed", error=f"{type(error).__name__}: {error}")
            raise
        self.finish(self.outcome)
