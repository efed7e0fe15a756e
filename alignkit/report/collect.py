"""Group runs into variants: the same recipe but for its name and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignkit.errors import InputError, listing, nearest
from alignkit.recipe.schema import walk
from alignkit.report.runs import RunData, read_run
from alignkit.run.files import read_json

NOT_WHAT_VARIES = frozenset({"seed", "budget.tokens", "budget.seconds"})
_SHOWN = 40  # characters of a setting in a variant's name


@dataclass(frozen=True)
class Variant:
    """A recipe and its finished runs, one per seed, by ascending seed; and those
    stopped because they collapsed.
    """

    label: str
    runs: Sequence[RunData]
    collapsed: Sequence[RunData] = ()
    # dotted key: value, of the keys that vary
    differs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collection:
    """What is compared; the base comes first. `left_out` says which run and why."""

    variants: Sequence[Variant]
    columns: Sequence[str]  # the dotted keys that vary
    metric: str | None = None  # what a sweep says decides
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()  # what a sweep recorded

    @property
    def runs(self) -> list[RunData]:
        """All runs, by variant."""
        return [run for variant in self.variants for run in variant.runs]


def collect(
    paths: Sequence[Path], *, base: str | None = None, allow_missing: bool = False
) -> Collection:
    """Read run folders, or sweep folders, into variants.

    `base` names the variant that the others are compared with; left out, it is the
    sweep's base or the first.

    Raises:
        InputError: every run that cannot be used (unless `allow_missing` leaves them
            out), no runs, two runs of one recipe and seed, or an unknown base.
    """
    listed, problems = _expand(paths)
    read: list[_Read] = []
    seen: set[Path] = set()
    for label, folder, collapsed, sweep in listed.runs:
        # named twice, or of a sweep that took it over from another one
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            read.append(
                _Read(label, read_run(folder, collapsed=collapsed), collapsed, sweep)
            )
        except InputError as error:
            problems += error.problems
    if problems and not allow_missing:
        raise InputError(*problems, "leave these out with --allow-missing")
    if all(one.collapsed for one in read):
        raise InputError(*problems, "there is no finished run to compare")
    variants, columns = _group(read, NOT_WHAT_VARIES | listed.ignored)
    name = base or listed.base
    chosen = [
        variant for variant in variants if name is not None and _named(variant, name)
    ]
    if base is None and not chosen:  # two sweeps with a base of this name
        chosen = [
            variant for variant in variants if variant.label.startswith(f"{name} ")
        ]
    if base is not None and not chosen:
        raise InputError(
            f"--base: there is no variant '{base}';"
            f" {nearest(base, [v.label for v in variants])}"
        )
    if not chosen or not chosen[0].runs:
        if base is not None:
            raise InputError(f"--base: variant '{base}' has no finished run")
        chosen = [variant for variant in variants if variant.runs]
        if listed.base is not None:
            listed.notes.append(
                f"The sweep's base '{listed.base}' has no finished run."
            )
    ordered = chosen[:1] + [variant for variant in variants if variant is not chosen[0]]
    return Collection(ordered, columns, listed.metric, problems, listed.notes)


def flatten(recipe: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested map; lists and empty maps are values."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@dataclass(frozen=True)
class _Read:
    label: str | None  # what a sweep calls the variant
    run: RunData
    collapsed: bool
    sweep: Path | None  # that names it


@dataclass
class _Listed:
    # label, folder, whether it collapsed, the sweep
    runs: list[tuple[str | None, Path, bool, Path | None]]
    base: str | None = None
    metric: str | None = None
    ignored: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def _expand(paths: Sequence[Path]) -> tuple[_Listed, list[str]]:
    """Run folders with the label a sweep gives them, and the runs that a sweep lacks."""
    listed, problems = _Listed([]), []
    for path in paths:
        if not (path / "sweep.json").is_file():
            listed.runs.append((None, path, False, None))
            continue
        try:
            problems += _of_sweep(path, listed)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path / 'sweep.json'} is damaged: {type(error).__name__}: {error}"
            ) from error
    return listed, problems


def _of_sweep(path: Path, listed: _Listed) -> list[str]:
    problems = []
    sweep = read_json(path / "sweep.json")
    listed.base, listed.metric = (
        listed.base or sweep["base"],
        listed.metric or sweep["metric"],
    )
    if sweep.get("budget"):
        # the budget decides; this is only its upper bound
        listed.ignored |= {"train.max_steps"}
    for job in sweep["jobs"]:
        who = f"{path.name}: variant {job['variant']}, seed {job['seed']}"
        if job["status"] not in ("done", "collapsed"):
            text = f"{who} is {job['status']}: {job.get('note') or ''}"
            problems.append(text.removesuffix(": "))
            continue
        folder = Path(job["run"])
        moved = path / "runs" / folder.name
        # the sweep lay elsewhere when it ran
        if not folder.exists() and moved.is_dir():
            folder = moved
        listed.runs.append((job["variant"], folder, job["status"] == "collapsed", path))
        if job["status"] == "collapsed":
            listed.notes.append(f"Collapsed, so not in the mean: {who}: {job['note']}.")
    return problems


def _group(
    read: Sequence[_Read], ignored: frozenset[str]
) -> tuple[list[Variant], list[str]]:
    """Variants, and the settings in which they differ. Within one sweep its label says
    what belongs together.
    """

    def settings(one: _Read) -> dict[str, Any]:
        flat = flatten(one.run.recipe)
        return {
            key: value
            for key, value in flat.items()
            if key not in ignored and walk.matters(key.split("."))
        }

    labelled: dict[Any, list[_Read]] = {}
    for number, one in enumerate(read):
        labelled.setdefault((one.sweep, one.label) if one.label else number, []).append(
            one
        )
    groups: dict[str, list[_Read]] = {}
    for same in labelled.values():
        groups.setdefault(
            json.dumps(settings(same[0]), sort_keys=True, default=str), []
        ).extend(same)
    flats = [settings(members[0]) for members in groups.values()]
    keys = sorted({key for flat in flats for key in flat})
    columns = [
        key
        for key in keys
        if any(key not in f or f[key] != flats[0].get(key) for f in flats)
    ]
    names = [
        next(
            (one.label for one in members if one.label),
            str(members[0].run.recipe.get("name")),
        )
        for members in groups.values()
    ]
    variants: list[Variant] = []
    problems: list[str] = []
    for name, flat, members in zip(names, flats, groups.values(), strict=True):
        differs = {key: flat[key] for key in columns if key in flat}
        label = name
        if names.count(name) > 1:
            label = f"{name} {_short(differs)}".strip()
        if label in (variant.label for variant in variants):
            label = f"{label} #{len(variants) + 1}"
        members.sort(key=lambda one: (str(type(one.run.seed)), one.run.seed))
        for before, after in pairwise(one.run for one in members):
            if before.seed == after.seed:
                problems.append(
                    f"{before.folder} and {after.folder} are the same recipe and seed;"
                    f" give one of them (align diff {before.folder} {after.folder} shows"
                    " whether their code and data are the same too)"
                )
        finished, collapsed = (
            [one.run for one in members if one.collapsed is c] for c in (False, True)
        )
        variants.append(Variant(label, finished, collapsed, differs))
    if problems:
        raise InputError(*problems)
    return variants, columns


def _named(variant: Variant, name: str) -> bool:
    folders = {
        part for run in variant.runs for part in (str(run.folder), run.folder.name)
    }
    return name == variant.label or name.rstrip("/") in folders


def _short(differs: Mapping[str, object]) -> str:
    parts = [
        f"{key.rsplit('.', 1)[-1]}={value}"[:_SHOWN] for key, value in differs.items()
    ]
    return listing(parts, limit=3)
