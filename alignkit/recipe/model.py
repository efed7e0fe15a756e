"""What a loaded recipe is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.recipe.schema import Config, Pipeline, Stage
from alignkit.recipe.tree import Node, Origin

DEFAULT = Origin("", kind="default")


@dataclass(frozen=True)
class Recipe:
    """A recipe that passed all checks."""

    path: Path
    config: Config
    # with the core's defaults; written as recipe.yaml it runs again as it is
    resolved: dict[str, Any]
    origins: dict[str, Origin]  # by dotted key, for every value of `resolved`
    parents: tuple[Path, ...] = ()  # what the file itself extends
    # merged, without defaults
    stated: Node = field(default_factory=lambda: Node({}, DEFAULT), repr=False)
    # what it is a change of
    base: Node = field(default_factory=lambda: Node({}, DEFAULT), repr=False)
    # of a pipeline, each complete
    stages: dict[str, Recipe] = field(default_factory=dict)

    @property
    def trained(self) -> dict[str, Recipe]:
        """The recipes that train a model, by name: a pipeline's stages, or this one."""
        return self.stages or {self.config.name: self}

    @property
    def stage(self) -> Stage:
        """The config of a recipe that is no pipeline.

        Raises:
            InputError: it is one.
        """
        if isinstance(self.config, Pipeline):
            raise InputError(
                f"{self.path} is a pipeline; name one of its stages:"
                f" {', '.join(self.stages)}"
            )
        return self.config

    def settings(self) -> Iterator[tuple[str, Any, Origin]]:
        """Each key that was stated, by its path, with its value and where."""
        for key, origin in self.origins.items():
            value: Any = self.resolved
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if origin.kind != "default" and not (isinstance(value, dict) and value):
                yield key, value, origin
