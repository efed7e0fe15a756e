"""Requested beside effective settings: what a recipe asked for must be what the first
optimizer step did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alignkit.errors import WorkError
from alignkit.recipe.schema import Advantage, Policy, Stage, walk


def requested(config: Stage, engine: str) -> dict[str, Any]:
    """The settings of a recipe that a trainer can be seen to use, by dotted key.

    `engine` is the one chosen for rollouts ("" where there are none).
    """
    found: dict[str, Any] = {}
    for path, known in walk.declarations().items():
        if known.key.observed and config.method in known.methods:
            value = walk.value_at(config, path)
            if value is not None:
                found[known.dotted] = value
    if "generation.engine" in found:
        found["generation.engine"] = engine
    for name, section in (("loss", config.loss), ("advantage", _advantage(config))):
        if section is not None:
            found |= {f"{name}.{key}": value for key, value in section.options.items()}
    for key, value in config.train.items():
        if isinstance(value, bool | int | float | str):
            found[f"train.{key}"] = value
    return found


def _advantage(config: Stage) -> Advantage | None:
    return config.advantage if isinstance(config, Policy) else None


def verify_effective(
    requested: Mapping[str, Any], effective: Mapping[str, Any]
) -> None:
    """Compare settings by dotted key; None in `requested` asks for nothing.

    Raises:
        WorkError: naming every setting that was asked for and is not in force.
    """
    wrong = []
    for key, asked in requested.items():
        if asked is None:
            continue
        if key not in effective:
            wrong.append(
                f"{key}: asked for {asked!r}, but nothing of the kind was in force"
            )
        elif not _same(asked, effective[key]):
            wrong.append(
                f"{key}: asked for {asked!r}, but {effective[key]!r} was in force"
            )
    if wrong:
        raise WorkError(
            "settings that were asked for are not in force:\n" + "\n".join(wrong)
        )


def _same(asked: Any, found: Any) -> bool:
    if isinstance(found, list) and not isinstance(asked, list | tuple):
        asked = [asked]  # DPO's loss_type: one, or a list
    if isinstance(asked, list | tuple) and isinstance(found, list | tuple):
        return len(asked) == len(found) and all(map(_same, asked, found))
    if isinstance(asked, int | float) and isinstance(found, int | float):
        return math.isclose(asked, found, rel_tol=1e-9)
    return asked == found
