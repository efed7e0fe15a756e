"""The rows of everything that a run reads, each data set loaded once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.rows import Row

if TYPE_CHECKING:
    from alignkit.plugins import Registry


class Datasets:
    """Data sets by what a recipe says of them, as `data.load_rows` takes it.

    What plans a run, fingerprints it and trains it takes the rows from here. Rows are
    shared, so nobody changes them; they are kept until `release`, fingerprints longer.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._rows: dict[str, list[Row]] = {}
        self._fingerprints: dict[str, str] = {}

    def rows(self, spec: Mapping[str, Any], seed: int) -> list[Row]:
        """The rows that `spec` describes; `seed` is the recipe's.

        Raises:
            InputError, MissingError: see `data.load_rows`.
        """
        key = _key(spec, seed)
        if key not in self._rows:
            self._rows[key] = data.load_rows(spec, self.registry, seed=seed)
        return self._rows[key]

    def fingerprint(self, spec: Mapping[str, Any], seed: int) -> str:
        """sha256 of those rows' content and order."""
        key = _key(spec, seed)
        if key not in self._fingerprints:
            self._fingerprints[key] = data.fingerprint(self.rows(spec, seed))
        return self._fingerprints[key]

    def release(self) -> None:
        """Let the rows go: whoever still needs some holds them."""
        self._rows.clear()


def _key(spec: Mapping[str, Any], seed: int) -> str:
    return json.dumps([spec, seed], sort_keys=True, default=str)
