"""Rows that are read more than once and lie on the disk meanwhile."""

from __future__ import annotations

import pickle
import tempfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from alignkit.data.rows import Row
from alignkit.run.files import writing


class Placed(Sequence[Row], ABC):
    """Rows that are fetched by their place when they are asked for."""

    @abstractmethod
    def _row(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return [self._row(place) for place in range(*at.indices(len(self)))]
        return self._row(at)

    def __iter__(self) -> Iterator[Row]:
        # by place, since two readers may share a file
        return map(self._row, range(len(self)))


class Spool(Placed):
    """Rows in a temporary file without a name: of each only its place is held.

    Pickle keeps every value as the reader made it (Parquet has dates and bytes); the
    file is written and read by this object alone.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        folder = Path(tempfile.gettempdir())
        self._starts = array("Q")
        with writing(folder):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        for row in rows:
            with writing(folder):
                self._starts.append(self._file.tell())
                pickle.dump(row, self._file, pickle.HIGHEST_PROTOCOL)
        with writing(folder):
            self._file.flush()

    def __len__(self) -> int:
        return len(self._starts)

    def _row(self, at: int) -> Row:
        self._file.seek(self._starts[at])
        row: Row = pickle.load(self._file)
        return row
