"""What a run says of an eval: a model is measured as its run measured it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from alignkit import records
from alignkit.errors import AlignError
from alignkit.evaluate.own import own_request
from alignkit.evaluate.request import SAMPLING, EvalRequest, Planned
from alignkit.recipe.schema.sections import Eval, Prompt

if TYPE_CHECKING:
    from alignkit.plugins import Registry

_AMOUNTS = ("limit", "samples")  # how much is measured: only typed
_MAPS = ("options", "data", "sampling")


@dataclass(frozen=True)
class Trained:
    """The run that a model is of."""

    folder: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""  # why its recipe says nothing

    @classmethod
    def of(cls, model: str) -> Trained | None:
        """The run whose folder, final model, best model or checkpoint this is."""
        path = Path(model).expanduser()
        places = [path, *list(path.absolute().parents)[:2]] if path.is_dir() else []
        for folder in places:
            if (folder / "manifest.json").is_file():
                try:
                    found = records.read(folder)
                except (AlignError, OSError) as error:
                    return cls(folder, unread=str(error))
                alone = len(found) == 1 and found[0].folder == folder
                return cls(folder, found[0].recipe) if alone else None
        return None

    @cached_property
    def evals(self) -> dict[str, Any]:
        """What its recipe states of each eval, not checked yet."""
        stated = self.recipe.get("evals")
        return stated if isinstance(stated, dict) else {}

    @property
    def seed(self) -> int:
        """The recipe's."""
        seed = self.recipe.get("seed", 0)
        return seed if type(seed) is int else 0

    def entry(self, name: str) -> Eval | None:
        """What its recipe says of an eval; None where it has none.

        Raises:
            ValidationError: what is said is none of an eval's settings.
        """
        stated = self.evals.get(name)
        return None if stated is None else Eval.model_validate(stated)

    def own(self, name: str, registry: Registry) -> EvalRequest | None:
        """An eval of rows and a reward that its recipe alone defines."""
        try:
            entry = self.entry(name)
        except ValidationError:
            return None
        if entry is None or entry.reward is None:
            return None
        return of_entry(name, entry, self.seed, registry)

    def prompt(self, request: EvalRequest) -> Any:
        """The prompt of its training, where that is of the eval's data set and the eval
        has no prompts of its own ways to be graded; else None.
        """
        spec, section = request.plugin.value, self.recipe.get("data")
        train = section.get("train") if isinstance(section, dict) else None
        dataset = train.get("dataset") if isinstance(train, dict) else None
        alike = dataset is not None and dataset == spec.data.get("dataset")
        if not alike or spec.prompt is None or "grader" in request.plugin.options():
            return None
        stated = section.get("prompt") if isinstance(section, dict) else None
        try:
            return None if stated is None else Prompt.model_validate(stated).spec
        except ValidationError:
            return None


def of_entry(name: str, entry: Eval, seed: int, registry: Registry) -> EvalRequest:
    """What a recipe says of one of its evals."""
    given = {**entry.changes, "seed": seed}
    if entry.reward is None:
        return EvalRequest.of(registry.get("eval", name), **given)
    reward = registry.get("reward", entry.reward.name)
    del given["options"]  # those of a plugin
    return own_request(name, reward, entry.reward.options, **given)


def as_trained(
    typed: EvalRequest, seed: int | None, run: Trained
) -> tuple[EvalRequest, str]:
    """What is typed over what the run says of the eval, and a line that tells of it.

    How much is measured (limit, samples) and who judges is only typed. `seed`: None
    where none is typed.
    """
    name = typed.plugin.name
    try:
        entry = run.entry(name)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, (f"evals.{name}", *fault["loc"])))
        unread = f"{run.folder / 'recipe.yaml'}: {where}: {fault['msg']}"
        return (
            typed,
            f"{name}: not as its run measured it, which cannot be read: {unread}",
        )
    if run.unread:
        return typed, f"{name}: what its run says of it cannot be read: {run.unread}"
    if entry is None:
        prompt = None if typed.prompt else run.prompt(typed)
        taken = f", with the prompt of its training, {_shown(prompt)}" if prompt else ""
        how = f"{name}: {run.folder} did not measure it; the eval's own settings{taken}"
        return replace(typed, prompt=typed.prompt or prompt), how
    stated = {**entry.changes, "seed": run.seed}
    theirs = {key: value for key, value in stated.items() if key not in _AMOUNTS}
    if entry.reward is not None:
        theirs["options"] = {}  # of the reward, which nothing typed changes
    merged: dict[str, Any] = {
        key: {**theirs[key], **getattr(typed, key)} for key in _MAPS
    }
    for key in theirs.keys() - {*_MAPS, "seed"}:
        given = getattr(typed, key)
        merged[key] = theirs[key] if given is None else given
    merged["seed"] = run.seed if seed is None else seed
    taken = ", ".join(f"{key} {_shown(value)}" for key, value in _flat(theirs))
    line = f"{name}: as {run.folder} measured it ({taken})"
    there = dict(_flat(theirs))
    if other := [
        f"{key} {_shown(value)} (there {_shown(there.get(key))})"
        for key, value in _flat(merged)
        if value != there.get(key)
    ]:
        line += f", but {', '.join(other)}"
    return replace(typed, **merged), line


def otherwise(planned: Planned, run: Trained) -> str:
    """In what the sampling of an eval that the run has not measured differs from that
    of its training; "" where in nothing, or where that is not known.
    """
    section = run.recipe.get("generation")
    if not isinstance(section, dict) or planned.likelihood or planned.stored:
        return ""
    here = planned.sampling
    other = [
        f"{key} {_shown(section[key])} (here {_shown(getattr(here, key))})"
        for key in SAMPLING
        if key in section and _plain(section[key]) != _plain(getattr(here, key))
    ]
    return f"; trained with {', '.join(other)}" if other else ""


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every setting that says something, those of maps by their own names."""
    for key in ("prompt", "sampling", "options", "data", "reasoning", "shots"):
        value = settings[key]
        if isinstance(value, Mapping) and key in _MAPS:
            yield from value.items()
        elif value is not None:
            yield key, value
    if settings["shots_from"] is not None:
        yield "shots_from", settings["shots_from"]
    yield "seed", settings["seed"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    if value is None:
        return "the eval's own"
    if isinstance(value, Mapping) and "file" in value:
        return str(value["file"])
    if isinstance(value, Mapping) and "template" in value:
        return "the recipe's template"
    text = value if isinstance(value, str) else repr(_plain(value))
    return text if len(text) <= 60 else f"{text[:60]}…"
