"""Checkpoints of a run: whole, or not there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from alignkit import json_text
from alignkit.errors import InputError
from alignkit.run.files import read_json, write_json, writing

ASIDE = ".writing"  # where one is made; it gets its name when it is whole
MARKER = "whole.json"  # written last: the size of every file by its name
STATE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# What reading what is no checkpoint may come to.
_DAMAGED = (
    InputError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
_LONGEST_HEADER = 100_000_000  # bytes; what safetensors itself allows


def by_step(home: Path) -> dict[int, Path]:
    """What is called a checkpoint in `checkpoints/`, newest first; TRL keeps other
    files there too.
    """
    if not home.is_dir():
        return {}
    named = ((_NAME.fullmatch(path.name), path) for path in home.iterdir())
    found = {int(name[1]): path for name, path in named if name and path.is_dir()}
    return dict(sorted(found.items(), reverse=True))


def newest(home: Path, *, marked: bool = True) -> tuple[Path | None, dict[str, str]]:
    """The newest whole checkpoint, if there is one, and why newer ones are none, by
    name.

    Args:
        marked: False for runs of alignkit 0.1, which wrote no marker.
    """
    passed: dict[str, str] = {}
    for path in by_step(home).values():
        fault = fault_of(path, marked=marked)
        if not fault:
            return path, passed
        passed[path.name] = fault
    return None, passed


def fault_of(folder: Path, *, marked: bool = True) -> str:
    """Why a checkpoint is not whole; empty when it is.

    Looks at names, sizes, headers and the trainer's state, not at every byte.
    """
    try:
        return (marked and _missing(folder)) or _unreadable(folder)
    except _DAMAGED as error:
        said = str(error)
        return (
            said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"
        )


def _missing(folder: Path) -> str:
    marker = folder / MARKER
    if not marker.is_file():
        return f"it has no {MARKER}, which is written last"
    sizes = read_json(marker)
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
    return "" if STATE in sizes else f"{MARKER} does not name {STATE}"


def _unreadable(folder: Path) -> str:
    # transformers writes it last
    state = read_json(folder / STATE)
    if state["global_step"] != int(folder.name.rpartition("-")[2]):
        return f"{STATE} is of step {state['global_step']}"
    for path in sorted(folder.rglob("*.safetensors")):
        if fault := _unlike_its_header(path):
            return f"{path.relative_to(folder)} {fault}"
    return ""


def _unlike_its_header(path: Path) -> str:
    """Eight bytes of length, a header in JSON, the tensors one after another."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _LONGEST_HEADER):
            return "is cut off in its header"
        header: Mapping[str, Mapping[str, list[int]]] = json_text.load(
            file.read(length)
        )
    ends = [of["data_offsets"][1] for name, of in header.items() if name[:2] != "__"]
    expected = 8 + length + max(ends, default=0)
    return "" if size == expected else f"has {size} bytes, its header says {expected}"


def publish(made: Path) -> Path:
    """Mark what was written in `checkpoints/.writing/` as whole and give it its name,
    over one of the same step that is not.
    """
    home = made.parent.parent
    with writing(made):
        files = sorted(path for path in made.rglob("*") if path.is_file())
        for (
            path
        ) in files:  # a marker must not reach the disk before what it vouches for
            _to_disk(path)
        sizes = {str(path.relative_to(made)): path.stat().st_size for path in files}
        write_json(made / MARKER, sizes)
        final = home / made.name
        if final.exists():
            shutil.rmtree(final)
        made.rename(final)
        _to_disk(home)
    return final


def prune(home: Path, limit: int | None, best: int | None) -> None:
    """Remove all but the newest `limit` whole checkpoints and the one of the `best`
    step; never the last whole one.
    """
    if not limit or limit < 0:
        return
    found = by_step(home)
    whole = [step for step, path in found.items() if not fault_of(path)]
    kept = {*whole[:limit], best}
    for step, path in found.items():
        if whole and step not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
