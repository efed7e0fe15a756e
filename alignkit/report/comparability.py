"""In what runs and their evals were measured differently, and so cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignkit.errors import listing
from alignkit.provenance import OLD, differences, is_old, measured_by
from alignkit.report.runs import RunData

# what must agree between evals set side by side
MEASURED_BY = ("prompt", "grader", "data", "shots", "sampling", "judge")
# What may differ all the same: another draw by the same settings, the same content (by
# its hash) in another place.
_MAY_DIFFER = {
    "sampling": ("seed",),
    "data": ("path",),
    "prompt": ("name",),
    "shots": ("seed", "examples"),
}


def measured_differently(metric: str, runs: Sequence[RunData]) -> list[str]:
    """One problem per field of the provenance in which the runs' evals differ."""
    problems: list[str] = []
    if metric == "train/reward":
        problems += _other_rewards(runs)
    evals = [
        (run.folder.name, result)
        for run in runs
        if (result := run.last_eval(metric)) is not None
    ]
    for name in MEASURED_BY:
        fields = [
            (folder, _fields(name, result.summary["provenance"]))
            for folder, result in evals
        ]
        if sides := _sides(fields):
            problems.append(
                f"eval '{evals[0][1].name}' was measured differently in its {name}:"
                f" {sides}"
            )
    return problems


def _sides(fields: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """The parts in which folders' fields are unlike, and which folder has which."""
    unlike = {
        key
        for _, field in fields
        for key in field
        if any(field[key] != other.get(key) for _, other in fields)
    }
    # then nothing else can be compared
    unlike = unlike & {"identity"} or unlike
    if not unlike:
        return ""
    sides: dict[str, list[str]] = {}
    for folder, field in fields:
        text = ", ".join(f"{key} {field.get(key)}".strip() for key in sorted(unlike))
        sides.setdefault(text, []).append(folder)
    return "; ".join(
        f"{text} in {listing(folders, limit=3)}" for text, folders in sides.items()
    )


def _other_rewards(runs: Sequence[RunData]) -> Iterator[str]:
    """In what the rewards, or their code, differ from the first run's."""
    if len({json.dumps(_rewards(run), sort_keys=True) for run in runs}) > 1:
        yield (
            "train/reward was measured differently in its grader: the runs have other"
            " rewards or weights"
        )
        return
    first, *others = runs
    for run in others:
        both = f"{first.folder.name} and {run.folder.name}"
        texts = differences(_code(first, "reward"), _code(run, "reward"))
        if is_old(first.manifest) != is_old(run.manifest):
            texts = iter([f"one is of {OLD}"])
        for text in texts:
            yield (
                f"train/reward was measured differently in its grader by {both}: {text}"
            )


def _code(run: RunData, kind: str = "") -> dict[str, Any]:
    """The code of a run's plugins, by plugin and file; of those of one kind."""
    parts = run.manifest.get("identity", {}).get("parts", {})
    return {
        name: part
        for name, part in parts.items()
        if isinstance(part, dict) and name.rpartition(", ")[2].startswith(kind)
    }


def _rewards(run: RunData) -> object:
    """The rewards that the logged reward is made of; a pipeline logs those of its last
    stage.
    """
    recipe = run.recipe
    for stage in (recipe.get("stages") or {}).values():
        recipe = stage
    return recipe.get("rewards")


def _fields(name: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    """A field of the provenance as comparable texts; how many samples a question has
    belongs to the sampling.
    """
    value = provenance.get(name)
    parts = {"": value}
    if isinstance(value, dict):
        parts = measured_by(value)
    if name == "sampling":
        parts = {**parts, "samples": provenance.get("samples")}
    return {
        key: json.dumps(part, sort_keys=True, default=str)
        for key, part in parts.items()
        if key not in _MAY_DIFFER.get(name, ())
    }


def other_differences(runs: Sequence[RunData]) -> list[str]:
    """What differs between the runs and is no setting of the recipe: versions, code,
    hardware, data of one seed.
    """
    notes = []
    for key in ("versions", "data", "git", "hardware"):
        values: dict[Any, set[str]] = {}
        for run in runs:
            text = json.dumps(run.manifest.get(key), sort_keys=True, default=str)
            values.setdefault(run.seed if key == "data" else None, set()).add(text)
        if any(len(texts) > 1 for texts in values.values()):
            notes.append(
                f"The runs differ in their {key} too; see each manifest.json, or `align"
                " diff RUN RUN`."
            )
    first, *others = [_code(run) for run in runs]
    changed = dict.fromkeys(
        text
        for code in others
        for text in differences(first, {**first, **code})
        if text.partition(":")[0] in first
    )
    notes += [f"The runs differ in their code too: {text}." for text in changed]
    return notes
