"""One hash for all that decides what a run does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# How a run is called, watched and stored does not change it.
_NO_MATTER = ("name", "description", "track", "output")


def fingerprint(
    resolved: Mapping[str, Any],
    plugins: Mapping[str, str],
    datasets: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:
    """sha256 of a resolved recipe, its plugins' source hashes, its datasets'
    fingerprints and the versions.

    A prompt file counts by its content, not by where it lies.
    """
    decisive = {
        "recipe": _decisive(resolved),
        "plugins": dict(plugins),
        "datasets": dict(datasets),
        "versions": dict(versions),
    }
    text = json.dumps(
        decisive, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def matters(key: str) -> bool:
    """Whether a dotted key of a resolved recipe decides the result."""
    words = key.split(".")
    return words[2 if words[0] == "stages" and len(words) > 2 else 0] not in _NO_MATTER


def _decisive(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        key: _by_content(value)
        for key, value in recipe.items()
        if key not in _NO_MATTER
    }
    if "stages" in found:
        found["stages"] = {
            name: _decisive(stage) for name, stage in recipe["stages"].items()
        }
    return found


def _by_content(value: Any) -> Any:
    """The value with 1.0 as 1 (a recipe may state either), and prompt files as the hash
    of what they hold.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_by_content(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _by_content(child) for key, child in value.items()}
    prompt = found.get("prompt")
    if isinstance(prompt, dict) and "file" in prompt:
        content = Path(prompt["file"]).read_bytes()
        found["prompt"] = {"sha256": hashlib.sha256(content).hexdigest()}
    return found
