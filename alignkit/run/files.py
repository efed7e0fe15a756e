"""Files written atomically (temporary name, fsync, rename) or append-only, where a torn
last line is tolerated.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from alignkit import json_text
from alignkit.errors import InputError, MissingError
from alignkit.json_text import BadJson

# How safetensors (the system's words) and torch (its own) say that a disk is full.
_FULL = ("os error 28", "os error 27", "os error 122", "No space left", "PytorchStream")


def atomic_write(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    atomic_write(
        path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    )


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows; a torn last line of an earlier process is cut off first."""
    text = "".join(
        json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows
    )
    # Lone surrogates of a hostile model's output cannot be encoded; they are written
    # escaped.
    append_bytes(path, text.encode("utf-8", "backslashreplace"))


def append_bytes(path: Path, lines: bytes) -> None:
    """Append whole lines; a torn last line of an earlier process is cut off first."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
                file.truncate(_last_newline(file, end))
            file.write(lines)


def _last_newline(file: BinaryIO, end: int) -> int:
    position = end
    while position:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return int(start + found + 1)
        position = start
    return 0


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, which may come from anywhere.

    Raises:
        InputError: it is none.
    """
    try:
        return {**json_text.load(path.read_bytes(), integer)}
    except BadJson as error:
        raise InputError(f"{path} is damaged: {error.placed()}") from error
    except TypeError as error:
        raise InputError(f"{path} is damaged: it holds no object") from error
    except OSError as error:
        raise InputError(f"{path} is damaged: {error.strerror}") from error


def integer(digits: str) -> int | float:
    """A whole number; infinity where no float could hold it."""
    return int(digits) if len(digits) <= 300 else float(digits)


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
                rows.append({**json_text.load(line, integer)})
            except BadJson as error:
                raise InputError(error.at(path, number)) from error
            except TypeError as error:
                raise InputError(f"{path}:{number}: no JSON object") from error
    return rows


@contextlib.contextmanager
def writing(path: Path, needs: str = "") -> Iterator[None]:
    """Turn the refusals of the operating system (read-only, full, no permission) into
    one clear error, also as torch and safetensors put them.

    `needs` says what the work would need, for a disk that is full.
    """
    try:
        yield
    except _refusals() as error:
        if is_full(error):
            raise MissingError(full(path, needs)) from error
        if not isinstance(error, OSError):
            raise
        raise MissingError(
            f"cannot write {path}: {error.strerror}; free space or choose another"
            " folder (--out or output.root)"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether something could not be written for want of room: on the disk, in a quota,
    or below the largest size of a file (`ulimit -f`).
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(word in str(error) for word in _FULL)


def full(path: Path, needs: str = "") -> str:
    """What is said where it strikes."""
    there = next((p for p in (path, *path.parents) if p.is_dir()), Path())
    free = shutil.disk_usage(there).free
    return (
        f"cannot write {path}: the disk is full (No space left on device, a quota, or"
        f" ulimit -f; {size(free)} free){needs and f'; {needs}'}. Free space or choose"
        " another folder (--out or output.root); what was whole before is kept"
    )


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count = round(count / 1000)
    return f"{count} GB"


def _refusals() -> tuple[type[Exception], ...]:
    """What torch and safetensors raise too, if safetensors is there to raise it."""
    loaded = sys.modules.get("safetensors")
    more = () if loaded is None else (loaded.SafetensorError,)
    return (OSError, RuntimeError, *more)


class LogFile(logging.FileHandler):
    """A log; what cannot be written there is lost without a word."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Logging itself would print a traceback for every line."""


def now() -> str:
    """The time in UTC, ISO format, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def fresh(root: Path, name: str) -> Path:
    """The path of a new run's folder: `<root>/<name>-<utc time>-<short id>`."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return root / f"{safe}-{stamp}-{secrets.token_hex(2)}"
