"""Read rows from a local file; a malformed one is named with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignkit.errors import InputError

Row = dict[str, Any]


def read_file(path: Path) -> list[Row]:
    """Rows of a .jsonl, .json, .csv, .tsv or .parquet file, each also as .gz. In CSV,
    `None` and `NA` stay text.

    Raises:
        InputError: unknown format, or malformed content, with its line.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind == "parquet":
        return _parquet(path)
    if kind not in _READERS:
        raise InputError(
            f"{path}: unknown data format; known: {', '.join([*_READERS, 'parquet'])},"
            " each also as .gz"
        )
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(
            "utf-8-sig"
        )
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}:{line}: not UTF-8: byte {error.object[error.start]:#04x}"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: broken gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return _READERS[kind](path, text)


def _jsonl(path: Path, text: str) -> list[Row]:
    rows = []
    # not splitlines: U+2028 may stand inside a string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_object(_json(line, path, number), f"{path}:{number}"))
    return rows


def _json_list(path: Path, text: str) -> list[Row]:
    rows = _json(text, path, 1)
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: expected a list of objects, got {type(rows).__name__} (one object"
            " per line is .jsonl)"
        )
    return [_object(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]


def _json(text: str, path: Path, line: int) -> Any:
    try:
        found = json.loads(text)
        # pairs of such escapes are one character; half a pair is none
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}:{line}: half a character (\\u{ord(error.object[error.start]):x})"
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise InputError(f"{path}:{line}: nested too deeply") from error
        raise InputError(
            f"{path}:{line + error.lineno - 1}:{error.colno}: not JSON: {error.msg}"
        ) from error
    except ValueError as error:  # Python reads no integers of thousands of digits
        raise InputError(f"{path}:{line}: {error}") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise InputError(
            f'{where}: expected an object such as {{"question": …}}, got'
            f" {type(row).__name__}"
        )
    return row


def _csv(path: Path, text: str, delimiter: str = ",") -> list[Row]:
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True
    )
    rows = []
    try:
        names = reader.fieldnames or ()
        if twice := [
            name for number, name in enumerate(names) if name in names[:number]
        ]:
            raise InputError(
                f"{path}:1: two columns are called {twice[0]!r}; one would hide the"
                " other"
            )
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}:{reader.line_num}: expected {len(names)} fields"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        raw = path.read_bytes()
        content = pyarrow.BufferReader(
            gzip.decompress(raw) if path.suffix == ".gz" else raw
        )
        return pyarrow.parquet.read_table(content).to_pylist()
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    "jsonl": _jsonl,
    "ndjson": _jsonl,
    "json": _json_list,
    "csv": _csv,
    "tsv": lambda path, text: _csv(path, text, "\t"),
}
