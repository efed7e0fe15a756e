"""Requested beside effective settings: what a recipe states must be what the live
objects hold, before the first optimizer step and after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alignkit.proofs.record import Finding
from alignkit.recipe.schema import Advantage, Policy, Trained, walk

SHOWN = 6  # keys that the record names, of those that cannot be observed


def requested(config: Trained, engine: str) -> dict[str, Any]:
    """The settings of a recipe by dotted key: all that it states of what decides the
    training, and the defaults of what a trainer can always be seen to use.

    `engine` is the one chosen for rollouts ("" where there are none).
    """
    settings: dict[str, Any] = {}
    for path, known in walk.declarations().items():
        if known.key.observed and config.method in known.methods:
            value = walk.value_at(config, path)
            if value is not None:
                settings[known.dotted] = value
    stated = config.model_dump(exclude_unset=True, exclude_none=True)
    declared = walk.declarations()
    for name, value in stated.items():
        if declared[name,].key.trains and name != "method":
            settings |= _flat(value, name)
    if "generation.engine" in settings:
        settings["generation.engine"] = engine
    for name, section in (("loss", config.loss), ("advantage", _advantage(config))):
        if section is not None:
            settings |= {f"{name}.{key}": v for key, v in section.options.items()}
    return settings


def _flat(value: Any, at: str) -> dict[str, Any]:
    """A map of maps by dotted keys; a field of `train` is one value, whatever it is."""
    if not isinstance(value, Mapping) or at.startswith("train."):
        return {at: value}
    settings: dict[str, Any] = {}
    for name, inner in value.items():
        settings |= _flat(inner, f"{at}.{name}")
    return settings


def _advantage(config: Trained) -> Advantage | None:
    return config.advantage if isinstance(config, Policy) else None


def compare(wanted: Mapping[str, Any], effective: Mapping[str, Any]) -> Finding:
    """Settings by dotted key; None in `wanted` asks for nothing, and what `effective`
    lacks cannot be observed.
    """
    asked = {key: value for key, value in wanted.items() if value is not None}
    seen = {key: value for key, value in asked.items() if key in effective}
    wrong = [
        f"{key}: asked for {value!r}, but {effective[key]!r} was in force"
        for key, value in seen.items()
        if not same(value, effective[key])
    ]
    unseen = unproven(wanted, effective)
    note = f"{len(seen)} settings in force"
    if unseen:
        shown = ", ".join(unseen[:SHOWN]) + (", …" if len(unseen) > SHOWN else "")
        note += f", {len(unseen)} that cannot be observed ({shown})"
    if not wrong:
        return Finding(value=float(len(seen)), note=note)
    return Finding(
        value=float(len(wrong)),
        unit="settings",
        note=note,
        fault="settings that were asked for are not in force:\n" + "\n".join(wrong),
        cure="Something changed them after the recipe was read.",
    )


def unproven(wanted: Mapping[str, Any], effective: Mapping[str, Any]) -> list[str]:
    """The keys of what was asked for and cannot be observed."""
    asked = (key for key, value in wanted.items() if value is not None)
    return sorted(key for key in asked if key not in effective)


def same(asked: Any, value: Any) -> bool:
    """Whether a value in force is the one that was asked for, both plain."""
    if isinstance(value, list) and not isinstance(asked, list | tuple):
        asked = [asked]  # DPO's loss_type: one, or a list
    if isinstance(asked, list | tuple) and isinstance(value, list | tuple):
        return len(asked) == len(value) and all(map(same, asked, value))
    if isinstance(asked, Mapping) and isinstance(value, Mapping):
        # the library fills in the rest of a map
        return all(key in value and same(asked[key], value[key]) for key in asked)
    if isinstance(asked, int | float) and isinstance(value, int | float):
        return math.isclose(asked, value, rel_tol=1e-6, abs_tol=1e-12)
    return bool(asked == value)
