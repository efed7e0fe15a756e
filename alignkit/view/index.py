"""An index of a run's rollouts: numbers of every row, and where its text lies.

Kept in the user's cache, as the folder may be a stranger's or read-only. Files only
grow while a run goes on; one that shrank (a resumed run) is read anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignkit import json_text
from alignkit.run.rows import Row, upgraded

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER);
CREATE TABLE IF NOT EXISTS rows (
  file INTEGER, place INTEGER, length INTEGER, step INTEGER, number INTEGER,
  sample INTEGER, reward REAL, status TEXT, cut INTEGER, question TEXT);
CREATE INDEX IF NOT EXISTS by_step ON rows (step, number);
"""


class Index:
    """The index of one run folder. `refresh` takes in what was written since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()  # one connection, asked by several threads
        self.connection = _open(folder)
        self.connection.executescript(_SCHEMA)

    def refresh(self) -> None:
        """Read what is new."""
        with self.lock:
            self._refresh()

    def _refresh(self) -> None:
        known = {
            name: (number, size)
            for number, name, size in self.connection.execute("SELECT * FROM files")
        }
        paths = {str(path.relative_to(self.folder)): path for path in self._paths()}
        with self.connection:
            for name in known.keys() - paths.keys():
                self._forget(known[name][0], name)
            for name, path in paths.items():
                number, size = known.get(name, (None, 0))
                now = path.stat().st_size
                if number is not None and now < size:
                    self._forget(number, name)
                    number, size = None, 0
                if now > size:
                    self._read(path, name, number, size)

    def _paths(self) -> Iterator[Path]:
        """The files of rollouts; where a link leads out of the folder, none."""
        home = self.folder.resolve()
        inside = functools.cache(lambda path: path.resolve().is_relative_to(home))
        for pattern in ("rollouts/step-*.jsonl", "iterations/*/rollouts.jsonl"):
            for path in sorted(self.folder.glob(pattern)):
                # a folder is followed once for all that it holds
                if inside(path.parent) and (not path.is_symlink() or inside(path)):
                    yield path

    def _forget(self, number: int, name: str) -> None:
        self.connection.execute("DELETE FROM rows WHERE file = ?", (number,))
        self.connection.execute("DELETE FROM files WHERE name = ?", (name,))

    def _read(self, path: Path, name: str, number: int | None, start: int) -> None:
        if number is None:
            cursor = self.connection.execute(
                "INSERT INTO files (name, size) VALUES (?, 0)", (name,)
            )
            number = cursor.lastrowid
        digits = re.findall(r"\d{1,18}", name)
        at = int(digits[0]) if digits else 0
        place = start
        with path.open("rb") as file:
            file.seek(start)
            while (line := file.readline()).endswith(b"\n"):
                if (row := _parsed(line)) is not None:
                    self.connection.execute(
                        "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (number, place, len(line), *_numbers(row, at)),
                    )
                place += len(line)
        self.connection.execute(
            "UPDATE files SET size = ? WHERE id = ?", (place, number)
        )

    def heat(self) -> list[tuple[int, int, float | None, int, int]]:
        """(step, group, mean reward, 1 where all rewards are equal, rows) of each group."""
        return self._select(
            "SELECT step, number, avg(reward), min(reward) IS max(reward), count(*)"
            " FROM rows GROUP BY step, number ORDER BY step, number"
        )

    def step(self, step: int) -> list[Row]:
        """The rows of a step, with their texts."""
        return self._rows("step = ? ORDER BY number, sample, rows.rowid", step)

    def question(self, text: str, limit: int) -> list[Row]:
        """Rows whose question holds a text."""
        escaped = re.sub(r"([%_\\])", r"\\\1", text)
        condition = "question LIKE ? ESCAPE '\\' ORDER BY step, number, sample LIMIT ?"
        return self._rows(condition, f"%{escaped}%", limit)

    def next(self, place: tuple[int, ...], wanted: str) -> list[int] | None:
        """Where the next row after a place (step, group, sample) is that is `wrong`, or
        `dead`: the first of a group whose rewards are all equal.
        """
        query = (
            "SELECT step, number, sample FROM rows WHERE status != 'ok'"
            " AND (step, number, sample) > (?, ?, ?)"
        )
        if wanted == "dead":
            place = place[:2]
            query = (
                "SELECT step, number, 0 FROM rows WHERE (step, number) > (?, ?)"
                " GROUP BY step, number HAVING min(reward) IS max(reward)"
            )
        found = self._select(f"{query} ORDER BY step, number, 3 LIMIT 1", place)
        return list(found[0]) if found else None

    def _select(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self.lock:
            return self.connection.execute(query, values).fetchall()

    def _rows(self, condition: str, *values: Any) -> list[Row]:
        places = self._select(
            "SELECT name, place, length FROM rows JOIN files ON files.id = rows.file"
            f" WHERE {condition}",
            values,
        )
        rows = []
        for name, place, length in places:
            with (self.folder / name).open("rb") as file:
                file.seek(place)
                if (row := _parsed(file.read(length))) is not None:
                    rows.append(row)
        return rows


def _open(folder: Path) -> sqlite3.Connection:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "alignkit" / "view"
    name = hashlib.sha256(f"{VERSION} {folder.resolve()}".encode()).hexdigest()[:24]
    try:
        home.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(home / f"{name}.sqlite", check_same_thread=False)
        connection.execute("SELECT count(*) FROM sqlite_master")
        return connection
    except (OSError, sqlite3.Error):  # no cache can be kept: in memory
        return sqlite3.connect(":memory:", check_same_thread=False)


def _parsed(line: bytes) -> Row | None:
    """A row; None for a damaged line, which the page leaves out."""
    try:
        return upgraded({**json_text.load(line)})
    except (ValueError, TypeError, AttributeError):
        return None


def _numbers(row: Row, at: int) -> tuple[Any, ...]:
    metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
    question = metadata.get("question")
    if question is None:
        question = row["prompt"]
    reward = row["reward"]
    return (
        _whole(row["step"], at),
        _whole(row["group"], 0),
        _whole(row["sample"], 0),
        reward if isinstance(reward, float) else _whole(reward, None),
        str(row["status"]),
        int(row["finish_reason"] == "length"),
        _text(question),
    )


def _whole(value: Any, otherwise: int | None) -> int | None:
    """A whole number that SQLite can hold."""
    fits = isinstance(value, int) and abs(value) < 2**63
    return value if fits else otherwise


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode("utf-8", "replace").decode()[:10_000]
