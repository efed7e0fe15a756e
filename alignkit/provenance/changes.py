"""Two provenances side by side, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from alignkit.provenance.fingerprint import Fingerprint
from alignkit.provenance.identity import VERSION

_HASHED_LESS = "of 0.1, which hashed fewer files"
OLD = (
    "alignkit 0.1, which knew a plugin by its own file alone: such an identity and"
    " today's cannot be compared"
)
_SUMMED_UP = ("sha256", "parts", "not_covered")
_NOT_OF_OLD = ("alignkit", "vllm")
Parts = Mapping[str, Any]


def is_old(manifest: Mapping[str, Any]) -> bool:
    """Whether 0.1 made this manifest, or this grader of a summary."""
    text = manifest.get("fingerprint") or manifest.get("sha256")
    return text is not None and not str(text).startswith(f"{VERSION}:")


def changes(manifest: Mapping[str, Any], now: Fingerprint) -> list[str]:
    """What is other now than when a run was begun, one text for each part; none when
    it is the same experiment.

    Of a run of 0.1 only the versions and the rows of its data can be told.
    """
    begun = manifest.get("identity")
    if begun is not None:
        return list(differences(begun["parts"], now.parts))
    versions = now.parts["versions"]
    assert isinstance(versions, Mapping)
    recorded = {
        package: version
        for package, version in manifest.get("versions", {}).items()
        if package in versions and package not in _NOT_OF_OLD
    }
    rows = {f"rows of data.{p}": h for p, h in manifest.get("data", {}).items()}
    known = {**rows, "versions": recorded}
    same = {name: now.parts.get(name) for name in rows}
    return list(
        differences(known, {**same, "versions": {p: versions[p] for p in recorded}})
    )


def differences(a: Parts, b: Parts) -> Iterator[str]:
    """Each part that differs, in words."""
    for name in dict.fromkeys([*a, *b]):
        first, second = a.get(name), b.get(name)
        if first == second:
            continue
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            for inner in dict.fromkeys([*first, *second]):
                if first.get(inner) != second.get(inner):
                    yield (
                        f"{name}:"
                        f" {_difference(inner, first.get(inner), second.get(inner))}"
                    )
        elif first is None or second is None:
            yield f"{name} is {'new' if first is None else 'gone'}"
        else:
            yield f"{name} changed"


def code_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of each plugin, data set and prompt in a run's manifest; of 0.1 the
    words that there is none to compare.
    """
    if is_old(manifest):
        return {"identity": _HASHED_LESS}
    parts = manifest.get("identity", {}).get("parts", {})
    beside = {name for name in parts if name.startswith("rows of ")}
    beside |= {"recipe", "versions"}  # which a manifest holds in full
    stated = {name: part for name, part in parts.items() if name not in beside}
    return {"identity": "of today", **stated}


def measured_by(part: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of a grader or judge in an eval's provenance: its files and
    packages one by one, and `identity`, of which kind these are.
    """
    if is_old(part):
        return {**part, "identity": _HASHED_LESS}
    stated = {k: v for k, v in part.items() if k not in _SUMMED_UP}
    if "parts" in part:
        stated |= {"identity": "of today", **part["parts"]}
    return stated


def _difference(name: str, first: Any, second: Any) -> str:
    package = name.removeprefix("package ")
    if package != name or not name.endswith(".py"):
        return f"{package} {first or 'not used'} there, {second or 'not used'} here"
    what = "its helper " if PurePath(name).name.startswith("_") else ""
    if first is None or second is None:
        return f"{what}{name} is {'new' if first is None else 'gone'}"
    return f"{what}{name} changed"
