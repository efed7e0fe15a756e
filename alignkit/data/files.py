"""Read rows from a local file, one after another; a malformed one is named with its
line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from alignkit import json_text
from alignkit.data.rows import FileRow, Row, whole
from alignkit.errors import InputError, MissingError
from alignkit.json_text import MAX_ROW, BadJson

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BATCH = 256  # rows of a Parquet file that are held at once


def read_file(path: Path) -> list[Row]:
    """All rows of a file, as they stand there; see `file_rows`.

    Raises:
        InputError: the first malformed row.
    """
    return list(whole(file_rows(path)))


def file_rows(path: Path) -> Iterator[FileRow]:
    """The rows of a .jsonl, .json, .csv, .tsv or .parquet file, each also gzipped.

    A list of objects may stand in a .jsonl file, and one object per line in a .json
    file. In CSV all values are texts, `None` and `NA` too.

    Raises:
        MissingError: no such file. InputError: unknown format, or a fault behind which
            nothing can be read.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind not in _READERS:
        raise InputError(
            f"{path}: unknown data format; known: {', '.join(_READERS)}, each also as"
            " .gz"
        )
    with _opened(path) as file:
        yield from _READERS[kind](path, file)


def count_lines(path: Path) -> int:
    """How many lines a file has, unpacked; of some formats more or fewer than rows.

    Raises:
        MissingError: there is no such file.
    """
    with _opened(path) as file:
        blocks = iter(lambda: file.read(json_text.CHUNK), b"")
        return sum(block.count(b"\n") for block in blocks)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file, unpacked where it is gzipped, behind its byte order mark."""
    if not path.is_file():
        raise MissingError(f"there is no file {path} (looked in {Path.cwd()})")
    with contextlib.ExitStack() as stack:
        try:
            file: Any = stack.enter_context(path.open("rb"))
            packed = path.suffix == ".gz" or file.read(2) == _GZIP
            file.seek(0)
            if packed:
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
            start = file.read(3)
            if start.startswith(_UTF16):
                raise InputError(
                    f"{path}: UTF-16; expected UTF-8: iconv -f UTF-16 -t UTF-8"
                )
            file.seek(len(codecs.BOM_UTF8) if start == codecs.BOM_UTF8 else 0)
            yield file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: broken gzip file: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    # not splitlines: U+2028 may stand inside a string
    while line := file.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            raise InputError(f"{path}:{number}: a row of more than {MAX_ROW >> 20} MiB")
        if number == 1 and b"\r" in line.rstrip(b"\r\n") and not line.endswith(b"\n"):
            raise InputError(
                f"{path}: its lines end with carriage returns alone; save it with the"
                " line ends of Unix or Windows"
            )
        yield number, line


def _json(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    """A list of objects, or one object per line: by its first character."""
    return (_listed if _starts_list(file) else _by_line)(path, file)


def _document(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    """A list of objects; several lines of one each are taken too."""
    if _starts_list(file):
        yield from _listed(path, file)
        return
    expected = "expected a list of objects; one object per line is .jsonl"
    rows = _by_line(path, file)
    first, second = next(rows, None), next(rows, None)
    if first is not None and (first.problem or second is None):
        raise InputError(f"{first.problem or f'{path}: a single object'}; {expected}")
    yield from filter(None, (first, second))
    yield from rows


def _starts_list(file: BinaryIO) -> bool:
    start = file.tell()
    first = b""
    while not first and (part := file.read(json_text.CHUNK)):
        first = part.strip()[:1]
    file.seek(start)
    return first == b"["


def _listed(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    try:
        for number, (line, value) in enumerate(json_text.elements(file), 1):
            yield _object(value, number, f"{path}:{line}: row {number}")
    except BadJson as error:
        raise InputError(error.at(path)) from error


def _by_line(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    for number, line in _lines(path, file):
        if not line.strip():
            continue
        try:
            value = json_text.parse(json_text.decode(line.rstrip(b"\r\n")))
        except BadJson as error:
            yield FileRow(number, f"{path}:{number}", {}, error.at(path, number))
        else:
            yield _object(value, number, f"{path}:{number}")


def _object(value: Any, number: int, place: str) -> FileRow:
    if isinstance(value, dict):
        return FileRow(number, place, value)
    problem = (
        f"{place}: expected an object, got {type(value).__name__}; a row is such as"
        ' {"question": "1+1?", "truth": "2"}'
    )
    return FileRow(number, place, {}, problem)


def _csv(path: Path, file: BinaryIO, delimiter: str = ",") -> Iterator[FileRow]:
    csv.field_size_limit(MAX_ROW)  # a response may be longer than csv's own limit
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for last, line in _lines(path, file):
            try:
                yield json_text.decode(line)
            except BadJson as error:
                raise InputError(error.at(path, last)) from error

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if twice := [
            name for number, name in enumerate(names) if name in names[:number]
        ]:
            raise InputError(
                f"{path}:1: two columns are called {twice[0]!r}; one would hide the"
                " other"
            )
        start = reader.line_num + 1
        for fields in reader:
            place = f"{path}:{start}"
            if len(fields) == len(names):
                yield FileRow(start, place, dict(zip(names, fields, strict=True)))
            elif fields:  # not a blank line
                why = f"expected {len(names)} fields, got {len(fields)}"
                yield FileRow(start, place, {}, f"{place}: {why}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{last}: {error}") from error


def _tsv(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    return _csv(path, file, "\t")


def _parquet(path: Path, file: BinaryIO) -> Iterator[FileRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        # its end tells where its parts lie; a gzipped one is unpacked for that
        source = file if not isinstance(file, gzip.GzipFile) else file.read()
        if isinstance(source, bytes):
            source = pyarrow.BufferReader(source)
        batches = pyarrow.parquet.ParquetFile(source).iter_batches(_BATCH)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield FileRow(number, f"{path}: row {number}", row)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error


_READERS: dict[str, Callable[[Path, BinaryIO], Iterator[FileRow]]] = {
    "jsonl": _json,
    "ndjson": _json,
    "json": _document,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
}
