"""JSON of unknown origin: bounded in size, and a fault has its place."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MAX_ROW = 1 << 28  # bytes of one row: what is read at once
CHUNK = 1 << 20
# half of a pair of escapes, or a pair
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_GAP = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class BadJson(ValueError):
    """What is wrong, and where: `line` and `column` count from 1; column 0 is none."""

    def __init__(self, why: str, line: int = 1, column: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.line = line
        self.column = column

    def at(self, path: object, line: int = 1) -> str:
        """The fault with its file and place; `line` is that of the text's first."""
        place = f"{path}:{line + self.line - 1}"
        return (
            f"{place}:{self.column}: {self.why}"
            if self.column
            else f"{place}: {self.why}"
        )

    def placed(self) -> str:
        """The fault with its place in a file that was named already."""
        column = f", column {self.column}" if self.column else ""
        return f"line {self.line}{column}: {self.why}"


def parse(text: str) -> Any:
    """The value that a text is.

    Raises:
        BadJson: none, half a character, a number of thousands of digits, too deep.
    """
    try:
        value, end = _decode(text, _skip(text, 0))
        if _skip(text, end) < len(text):
            raise json.JSONDecodeError("Extra data", text, _skip(text, end))
    except json.JSONDecodeError as error:
        why = f"not JSON: {error.msg}"
        raise BadJson(why, error.lineno, error.colno) from error
    return value


def load(text: str | bytes, integer: Callable[[str], Any] = int) -> Any:
    """The value that a text is, also with half a character in it, as what a model said
    may be written; `integer` makes whole numbers of their digits.

    Raises:
        BadJson: none, a number that `integer` refuses, too deep.
    """
    try:
        return json.loads(text, parse_int=integer)
    except RecursionError as error:
        raise BadJson("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error.msg}", error.lineno, error.colno) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from error
    except ValueError as error:  # Python reads no integers of thousands of digits
        raise BadJson(str(error)) from error


def decode(line: bytes) -> str:
    """A line as text.

    Raises:
        BadJson: it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error) from error


def elements(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """(line, value) of each element of a list, read piece by piece.

    Raises:
        BadJson: no list of JSON values.
    """
    text = _Text(file)
    if text.next() != "[":
        raise text.fault("expected a list of objects")
    text.at += 1
    if text.next() == "]":
        text.at += 1
    else:
        yield from _members(text)
    if text.next():
        raise text.fault(
            "not JSON: something stands behind the list (a file is one list, or one"
            " object per line)"
        )


def _members(text: _Text) -> Iterator[tuple[int, Any]]:
    while True:
        text.next()
        line = text.line()
        yield line, text.value()
        sign = text.next()
        if sign not in (",", "]"):
            raise text.fault("not JSON: Expecting ',' delimiter")
        text.at += 1
        if sign == "]":
            return


class _Text:
    """A file's text, of which only what is being read is held."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.held = ""
        self.at = 0  # in `held`
        self.lines = 0  # before `held`
        self.column = 0  # of the start of `held`, on its line
        self.ended = False

    def more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        before = self.held[: self.at]
        if newlines := before.count("\n"):
            self.lines += newlines
            self.column = 0
            before = before[before.rindex("\n") + 1 :]
        self.column += len(before)
        self.held, self.at = self.held[self.at :], 0
        if self.ended:
            return False
        raw = self.file.read(size)
        self.ended = not raw
        try:
            self.held += self.decoder.decode(raw, final=self.ended)
        except UnicodeDecodeError as error:
            fault = _not_utf8(error)
            fault.line += self.lines + self.held.count("\n")
            raise fault from error
        return not self.ended

    def next(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            self.at = _skip(self.held, self.at)
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more(CHUNK):
                return ""

    def value(self) -> Any:
        size = CHUNK
        while True:
            try:
                value, end = _decode(self.held, self.at)
                # a number may go on
                if end < len(self.held) or self.ended:
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended:
                    raise self.fault(f"not JSON: {error.msg}", error.pos) from error
            except BadJson as error:
                raise self.fault(error.why) from error
            if len(self.held) - self.at > MAX_ROW:
                raise self.fault(f"an element of more than {MAX_ROW >> 20} MiB")
            self.more(size)
            size *= 2

    def line(self) -> int:
        return self.lines + self.held.count("\n", 0, self.at) + 1

    def fault(self, why: str, at: int | None = None) -> BadJson:
        before = self.held[: self.at if at is None else at]
        newlines = before.count("\n")
        column = len(before) - before.rfind("\n") - 1 if newlines else len(before)
        return BadJson(
            why,
            self.lines + newlines + 1,
            column + 1 + (0 if newlines else self.column),
        )


def _decode(text: str, at: int) -> tuple[Any, int]:
    """The value that starts there, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise BadJson("nested too deeply") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # Python reads no integers of thousands of digits
        raise BadJson(str(error)) from error
    if _SURROGATE.search(text, at, end):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise BadJson(f"half a character (\\u{half:x})") from error
    return value, end


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _not_utf8(error: UnicodeDecodeError) -> BadJson:
    before = error.object[: error.start]
    column = error.start - before.rfind(b"\n")
    byte = error.object[error.start]
    return BadJson(
        f"not UTF-8: byte {byte:#04x} at column {column}; save the file as UTF-8"
        " (iconv -t UTF-8 -f ITS_ENCODING)",
        before.count(b"\n") + 1,
    )
