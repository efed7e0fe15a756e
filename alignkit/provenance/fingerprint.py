"""What decides what a run does, part by part, and one hash of it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from alignkit import data
from alignkit.data.datasets import Datasets
from alignkit.machine import here
from alignkit.provenance.identity import VERSION, hash_of, identity
from alignkit.provenance.named import named
from alignkit.recipe.paths import is_file, is_folder
from alignkit.recipe.plugin_check import map_at
from alignkit.recipe.schema import walk
from alignkit.recipe.tree import Key

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.types import Prompt

# They count where a plugin uses them.
_OF_PLUGINS = ("math-verify", "sympy", "alpaca-eval")
Rows = Callable[[Mapping[str, Any], int], str]  # the hash, by spec and seed


@dataclass(frozen=True)
class Fingerprint:
    """`parts`: by name a hash, or hashes and versions by name. `not_covered`: what the
    run also depends on, and what may change unseen.
    """

    parts: Mapping[str, str | Mapping[str, str]]
    not_covered: Sequence[str]

    @property
    def text(self) -> str:
        """One hash; equal for runs of one experiment."""
        return hash_of(self.parts)

    def record(self) -> dict[str, Any]:
        """The fields of a run's manifest."""
        parts = {"version": VERSION, "parts": self.parts}
        not_covered = {"not_covered": list(self.not_covered)}
        return {"fingerprint": self.text, "identity": {**parts, **not_covered}}


def of_run(
    recipe: Recipe, registry: Registry, datasets: Datasets | None = None
) -> Fingerprint:
    """The fingerprint of a run: the recipe, each plugin, data set and prompt that it
    names, and the versions.

    `datasets` has the rows where others read them too.

    Raises:
        InputError, MissingError: what the recipe names cannot be had or read.
    """
    rows = (datasets or Datasets(registry)).fingerprint
    parts: dict[str, str | Mapping[str, str]] = {}
    not_covered: dict[str, None] = {}
    for name, stage in (recipe.stages or {"": recipe}).items():
        inside = f"stage {name}, " if name else ""
        for part, value in _of_stage(stage, registry, rows, not_covered):
            parts[f"{inside}{part}"] = value
    stages = [stage.resolved for stage in recipe.trained.values()]
    engines = [map_at(stage, "generation").get("engine") for stage in stages]
    versions = {
        package: version
        for package, version in here.versions().items()
        if package not in _OF_PLUGINS and (package != "vllm" or "vllm" in engines)
    }
    return Fingerprint({**parts, "versions": versions}, list(not_covered))


def _of_stage(
    stage: Recipe, registry: Registry, rows: Rows, not_covered: dict[str, None]
) -> Iterator[tuple[str, str | Mapping[str, str]]]:
    everything = named(stage.resolved, registry)
    counted = {(*key, "path") for key in everything.data} | {*everything.prompts}
    yield "recipe", _hash(decisive(stage.resolved, everything.defaults, counted))
    for label, plugin in everything.distinct.items():
        if plugin.kind == "callback":
            continue  # it watches
        code = identity(plugin)
        yield label, code.parts
        if plugin.kind != "dataset":  # its rows count, however they were had
            not_covered |= dict.fromkeys(code.not_covered)
    for key, spec in everything.data.items():
        yield f"rows of {'.'.join(key)}", rows(spec, stage.stage.seed)
    for key, stated in everything.prompts.items():
        prompt = data.load_prompt(stated, registry)
        yield ".".join(key), _hash_of_prompt(prompt)


def decisive(
    config: Mapping[str, Any],
    defaults: Mapping[Key, Any],
    counted: set[Key],
    key: Key = (),
) -> dict[str, Any]:
    """What a recipe states that decides the result, without what stands at its default,
    so that a key that is new changes nothing.

    `defaults`: those of plugins' options. `counted`: keys that count elsewhere.
    """
    stated = {}
    for name, value in config.items():
        child = (*key, name)
        if child in counted or not walk.matters(child):
            continue
        plain = _plain(value, defaults, counted, child)
        default = defaults.get(child, _default(child))
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_none=True)
        if _hash(plain) != _hash(_plain(default, defaults, counted, child)):
            stated[name] = plain
    return stated


def _plain(value: Any, defaults: Mapping[Key, Any], counted: set[Key], key: Key) -> Any:
    """The value with 1.0 as 1 (a recipe may state either), and paths by content."""
    if isinstance(value, Mapping):
        return decisive(value, defaults, counted, key)
    if isinstance(value, list | tuple):
        return [_plain(item, defaults, counted, key) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and Path(value).is_absolute():
        return _content(Path(value), key)
    return value


def _default(key: Key) -> Any:
    known = walk.declared(key)
    if known is None or known.field.is_required():
        return ...
    return known.field.get_default(call_default_factory=True)


def _content(path: Path, key: Key) -> str:
    """A file, or the folder of a model, counts by what it holds, not by where it lies."""
    if is_file(path):
        return _file_hash(path)
    known = walk.declared(key)
    if known is None or known.key.path != "model" or not is_folder(path):
        return str(path)
    if is_file(path / "manifest.json"):
        path = path / "model"
    files = sorted(p for p in path.glob("*") if is_file(p) and p.name[0] != ".")
    return _hash({file.name: _file_hash(file) for file in files})


def _file_hash(path: Path) -> str:
    state = path.stat()
    return _hash_file(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _hash_file(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_prompt(prompt: Prompt | None) -> str:
    assert prompt is not None, "one is named"
    template = prompt.template
    text = template if isinstance(template, str) else [dict(m) for m in template]
    return _hash([text, list(prompt.stop)])


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
