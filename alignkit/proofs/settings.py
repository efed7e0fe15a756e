"""Requested beside effective settings: what a recipe asked for must be what the first
optimizer step did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alignkit.errors import WorkError

_TRAIN = (
    *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "beta", "epsilon", "epsilon_high"),
)
_GENERATION = (
    "temperature",
    "top_p",
    "top_k",
    "min_new_tokens",
    "max_new_tokens",
    "stop",
)


def requested(config: Any, engine: str) -> dict[str, Any]:
    """The settings of a recipe that a trainer can be seen to use, by dotted key.

    `engine` is the one chosen for rollouts ("" where there are none).
    """
    found: dict[str, Any] = {
        "method": config.method,
        "launch.processes": config.launch.processes,
    }
    for section in ("loss", "advantage"):
        stated = getattr(config, section)
        if stated is not None:
            plain = {
                **stated.model_dump(exclude_none=True, exclude=set(stated.options)),
                **stated.options,
            }
            found |= {f"{section}.{key}": value for key, value in plain.items()}
    found |= {
        f"train.{key}": config.train[key] for key in _TRAIN if key in config.train
    }
    if config.generation is not None:
        found |= {
            f"generation.{key}": getattr(config.generation, key) for key in _GENERATION
        }
        found["generation.engine"] = engine
    return found


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
