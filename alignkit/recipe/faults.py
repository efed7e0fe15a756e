"""Faults of a recipe, each with the place where it was stated."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit.recipe.paths import is_file
from alignkit.recipe.tree import Key, Node, Origin, find

# What was expected, by pydantic's kinds of fault.
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text of the form {pattern}",
}


class Faults:
    """Collects the faults of one tree."""

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self.found: list[tuple[Origin, str]] = []
        self.faulty: list[Key] = []

    def problem(self, key: Key, text: str, origin: Origin | None = None) -> None:
        """A fault at a key, placed at the nearest thing that was stated."""
        at = self.nearest(key) if origin is None else origin
        self.faulty.append(key)
        self.found.append(
            (at, f"{at}: {'.'.join(key)}: {text}" if key else f"{at}: {text}")
        )

    @property
    def problems(self) -> list[str]:
        """The faults, each once, by file, line and column."""
        ordered = sorted(
            self.found, key=lambda pair: (pair[0].file, pair[0].line, pair[0].column)
        )
        return list(dict.fromkeys(text for _, text in ordered))

    def nearest(self, key: Key) -> Origin:
        """Where a key was stated, or what stands above it."""
        for length in range(len(key), 0, -1):
            node = find(self.tree, key[:length])
            if node is not None:
                return node.origin
        return self.tree.origin

    def recorded(self, key: Key) -> bool:
        """Whether it stands in a run folder: it ran so, whatever is refused today."""
        file = Path(self.nearest(key).file)
        return file.name == "recipe.yaml" and is_file(file.with_name("manifest.json"))


def without(config: Mapping[str, Any], keys: Sequence[Key]) -> dict[str, Any]:
    """A copy that lacks some keys; a list lacks all of its items where one is named."""
    sound = copy.deepcopy(dict(config))
    for key in keys:
        section: Any = sound
        for part in key[:-1]:
            below = section.get(part)
            if not isinstance(below, dict):
                section.pop(part, None)
                break
            section = below
        else:
            if key:
                section.pop(key[-1], None)
    return sound
