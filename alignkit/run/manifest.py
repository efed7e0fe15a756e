"""What a run says of itself in manifest.json, which may come from anywhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from alignkit.errors import InputError
from alignkit.run.files import read_json


class Identity(TypedDict, total=False):
    """What decides the run's result: see `alignkit.provenance`."""

    parts: dict[str, Any]
    not_covered: list[str]


class Lineage(TypedDict, total=False):
    """The run that this one starts from (`--from`): from its `weights` at a step, or,
    a pipeline, with its first `stages`; `anew` says why the next one is not kept.
    """

    run: str
    name: str | None
    fingerprint: str | None
    step: int | None
    weights: str
    stages: list[str]
    anew: str


class Manifest(TypedDict, total=False):
    """The fields that alignkit reads back; a manifest may hold more."""

    name: str
    status: str
    created: str
    host: str
    pid: int
    started: str
    boot: str
    heartbeat: str
    fingerprint: str
    identity: Identity
    versions: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, Any]
    timings: dict[str, Any]
    training: dict[str, Any]
    resumed: list[str]
    lineage: Lineage


def told(lineage: Lineage) -> str:
    """Where a run starts, in words."""
    run, step = lineage.get("run", "another run"), lineage.get("step")
    if "stages" in lineage:
        return f"{', '.join(lineage['stages'])} kept of {run}"
    return f"starts from {run}" + ("" if step is None else f" at step {step}")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a file.

    Raises:
        InputError: it is none; names the field.
    """
    from pydantic import ValidationError

    try:
        manifest = read_json(path)
        _shape().validate_python(manifest, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is damaged: {where}: {first['msg']}, given {first['input']!r:.60}"
        ) from error
    return manifest


@functools.cache
def _shape() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Manifest)
