"""Files written atomically (temporary name, fsync, rename) or append-only, where a torn
last line is tolerated.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from alignkit.errors import InputError, MissingError


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
                raise InputError(
                    f"{path}:{number}: not a JSON line: {error}"
                ) from error
    return rows


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (read-only, full, no permission) into one
    clear error.
    """
    try:
        yield
    except OSError as error:
        raise MissingError(
            f"cannot write {path}: {error.strerror}; free space or choose another"
            " folder (--out or output.root)"
        ) from error


def now() -> str:
    """The time in UTC, ISO format, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
