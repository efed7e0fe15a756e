"""The run folder: create, find, write, read back.

Files are written atomically (temporary name, fsync, rename) or append-only, where a torn last line is tolerated.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignkit.errors import AlignError, InputError, MissingError

RECORDED_PACKAGES = (
    *("alignkit", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers"),
    *("math-verify", "sympy", "vllm", "flash-attn", "alpaca-eval"),
)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows; a torn last line of an earlier process is cut off first."""
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                file.truncate(_last_newline(file, end))
            # Lone surrogates of a hostile model's output cannot be encoded; they are written escaped.
            file.write(text.encode("utf-8", "backslashreplace"))


def _last_newline(file: Any, end: int) -> int:
    position = end
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        position = start
    return 0


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a torn last line is left out.

    Raises:
        InputError: for a damaged line elsewhere, with its number.
    """
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                rows.append({**json.loads(line)})
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}:{number}: not a JSON line: {error}") from error
    return rows


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (read-only, full, no permission) into one clear error."""
    try:
        yield
    except OSError as error:
        raise MissingError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder (--out or output.root)"
        ) from error


class Run:
    """One run's folder. Only one process writes to it; on the others every write is left out (`writes` False)."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, writes: bool = True) -> None:
        self.folder = folder
        self.manifest = manifest
        self.writes = writes
        self.outcome = "done"  # the status that `recorded` closes with
        self._started = time.monotonic()
        self._log: logging.Handler | None = None

    @classmethod
    def create(cls, root: Path, name: str, folder: Path | None = None, **manifest: Any) -> Run:
        """Make `<root>/<name>-<utc time>-<short id>`, or exactly `folder`, with a manifest that says `running`.

        Raises:
            InputError: `folder` is there already; a run never overwrites another.
        """
        if folder is None:
            safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            folder = root / f"{safe}-{stamp}-{secrets.token_hex(2)}"
        if folder.exists():
            raise InputError(f"{folder} is there already, and a run never overwrites another; name a new folder")
        with writing(folder):
            folder.mkdir(parents=True)
        run = cls(folder, {"name": name, "status": "running", "created": now(), "pid": os.getpid(), **manifest})
        run.update(host=platform.node(), command=[Path(sys.argv[0]).name, *sys.argv[1:]])
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
            raise InputError(f"{folder} is no run folder: it has no manifest.json; runs are made by `align run`")
        try:
            return cls(path, {**json.loads(manifest.read_text(encoding="utf-8"))})
        except (ValueError, TypeError) as error:
            raise InputError(f"{manifest} is damaged: {error}") from error

    @classmethod
    def join(cls, folder: Path | str) -> Run:
        """The run of which this is one of several training processes; the first of them writes."""
        run = cls.open(folder)
        run.writes = os.environ.get("RANK", "0") == "0"
        run.update(pid=os.getpid(), host=platform.node())
        return run

    @classmethod
    def reopen(cls, folder: Path | str, *, redo: bool = False) -> Run:
        """Take over a run that was interrupted, failed or died, to go on with it; with `redo` also one that is done.

        Raises:
            InputError: it is done, or another process is still at work on it.
        """
        run = cls.open(folder)
        if run.status == "done" and not redo:
            raise InputError(f"{folder} is done; there is nothing to resume")
        if run.status == "running" and run.manifest["pid"] != os.getpid():  # a restarted container counts anew
            raise InputError(f"{folder} is still being worked on by process {run.manifest['pid']}; wait, or stop it")
        times = [*run.manifest.get("resumed", []), now()]
        run.update(status="running", pid=os.getpid(), host=platform.node(), resumed=times, error=None)
        return run

    @property
    def status(self) -> str:
        """`running`, `done`, `failed`, `interrupted`, or `died` when its process is gone without a word."""
        status = str(self.manifest.get("status"))
        here = self.manifest.get("host") == platform.node()
        return "died" if status == "running" and here and not _alive(int(self.manifest.get("pid", 0))) else status

    @property
    def model(self) -> Path:
        """The folder of the final model."""
        return self.folder / "model"

    def update(self, **fields: Any) -> None:
        """Set fields of the manifest and write it."""
        self.manifest.update(fields)
        if self.writes:
            write_json(self.folder / "manifest.json", self.manifest)

    def finish(self, status: str, **fields: Any) -> None:
        """Close the run with a status and its duration in seconds."""
        timings = {**self.manifest.get("timings", {}), "total_seconds": round(time.monotonic() - self._started, 3)}
        self.update(status=status, finished=now(), timings=timings, **fields)
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()

    def write(self, name: str, text: str) -> None:
        """Write one of the run's text files."""
        if self.writes:
            atomic_write(self.folder / name, text)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl: `step`, then numbers under `train/…` and `eval/…`."""
        if not self.writes:
            return
        stamp = {"time": now(), "seconds": round(time.monotonic() - self._started, 3)}
        append_jsonl(self.folder / "metrics.jsonl", [{"step": row["step"], **stamp, **row}])

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        return read_jsonl(path) if path.is_file() else []

    def forget_after(self, step: int) -> None:
        """Drop what was logged, sampled and evaluated after a step, because training goes on from there.

        Evals of the untrained model are kept, finished or not.
        """
        if not self.writes:
            return
        kept = [row for row in self.metrics() if row["step"] <= step]
        if kept:
            self._started = time.monotonic() - kept[-1]["seconds"]  # the wall clock of the rows goes on
        if kept or (self.folder / "metrics.jsonl").exists():
            self.write("metrics.jsonl", "".join(json.dumps(row, default=str) + "\n" for row in kept))
        for path in (self.folder / "rollouts").glob("*-*.jsonl"):
            if int(path.name.rpartition("-")[2].partition(".")[0]) > step:
                path.unlink()
        for path in (self.folder / "evals").glob("*@*"):
            if int(path.name.rpartition("@")[2]) > max(step, 0):
                shutil.rmtree(path)
        shutil.rmtree(self.model, ignore_errors=True)

    def write_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]], kind: str = "step") -> None:
        """Add every rollout of a step to rollouts/step-NNNNNN.jsonl; a further process has a file of its own.

        `kind` is `validation` for those of `data.validation`, which nothing is trained on.
        """
        own = "" if self.writes else f".{os.environ['RANK']}"
        append_jsonl(self.folder / "rollouts" / f"{kind}-{step:06d}{own}.jsonl", rows)

    def log_to_file(self) -> None:
        """Send Python's logging and warnings to log.txt."""
        handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        self._log = handler

    @contextlib.contextmanager
    def recorded(self) -> Iterator[Run]:
        """Run the work inside: done, interrupted, or failed with the reason in manifest and log."""
        if not self.writes:
            yield self
            return
        self.log_to_file()
        try:
            yield self
        except KeyboardInterrupt:
            self.finish("interrupted")
            raise
        except AlignError as error:
            logging.getLogger("alignkit").error("the run failed: %s", error)
            self.finish("failed", error=str(error))
            raise
        except Exception as error:
            logging.getLogger("alignkit").exception("the run failed")
            self.finish("failed", error=f"{type(error).__name__}: {error}")
            raise
        self.finish(self.outcome)


def find_runs(root: Path) -> list[Run]:
    """The run folders directly in `root`, oldest first; folders without a readable manifest are left out."""
    runs = []
    for manifest in sorted(root.glob("*/manifest.json")):
        with contextlib.suppress(InputError):
            runs.append(Run.open(manifest.parent))
    return sorted(runs, key=lambda run: str(run.manifest.get("created")))


def newest_finished(root: Path) -> Run:
    """The newest run that is done and has a model; a stage of a pipeline is a run too.

    Raises:
        InputError: when there is none.
    """
    found = [run for folder in (root, *root.glob("*/stages")) for run in find_runs(folder)]
    done = [run for run in found if run.status == "done" and run.model.is_dir()]
    if not done:
        raise InputError(
            f"no finished run in {root}; pass --model with a folder, a hub id or a run, or `align run` first"
        )
    return max(done, key=lambda run: str(run.manifest.get("created")))


def eval_summaries(folder: Path) -> dict[str, Any]:
    """The summaries of a run's evals by name, at the first and at the last step they ran."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("evals/*@*/summary.json"), key=lambda p: int(p.parent.name.rpartition("@")[2])):
        summary = json.loads(path.read_text(encoding="utf-8"))
        entry = found.setdefault(summary["eval"], {"first": summary})
        entry["last"] = summary
    return found


def now() -> str:
    """The time in UTC, ISO format, seconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether the tree is changed, of the checkout that holds `folder`; None outside one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(git("status", "--porcelain"))} if commit else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
