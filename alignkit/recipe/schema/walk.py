"""The one walker over the declarations: what is known of a key, and of what a recipe
states.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import create_model
from pydantic.fields import FieldInfo

from alignkit import sampling
from alignkit.recipe.schema.key import Key, PluginSection, Section
from alignkit.recipe.schema.methods import METHODS, Pipeline

Path = tuple[str, ...]  # ("evals", "math", "limit"); in a declaration names are "*"


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared key. `section` is the map that stands there, or in it by name."""

    path: Path
    key: Key
    field: FieldInfo
    section: type[Section] | None
    methods: tuple[str, ...]

    @property
    def is_map(self) -> bool:
        """Whether names stand there, each with a section."""
        return get_origin(_bare(self.field.annotation)) is dict

    @property
    def dotted(self) -> str:
        """The key as a recipe's reader knows it."""
        return ".".join(self.path).replace("*", "<name>")


@functools.cache
def declarations() -> dict[Path, Declared]:
    """Every key of every method."""
    found: dict[Path, Declared] = {}
    for method, cls in METHODS.items():
        _declare(cls, (), method, found)
    return found


def _declare(
    cls: type[Section], at: Path, method: str, found: dict[Path, Declared]
) -> None:
    for name, field in cls.model_fields.items():
        path = (*at, name)
        section = _section(field.annotation)
        methods = (*found[path].methods, method) if path in found else (method,)
        known = next((m for m in field.metadata if isinstance(m, Key)), Key())
        # The widest map counts: a method may leave out some of its keys.
        if path in found and section is not None:
            older = found[path].section
            if older is not None and issubclass(older, section):
                section, field = older, found[path].field
        found[path] = Declared(path, known, field, section, methods)
        inner = _section(cls.model_fields[name].annotation)
        if inner is not None:
            below = (*path, "*") if found[path].is_map else path
            _declare(inner, below, method, found)


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and `None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (UnionType, Union):
        arms = [arm for arm in get_args(annotation) if arm is not NoneType]
        return _bare(arms[0]) if len(arms) == 1 else annotation
    return annotation


def _section(annotation: Any) -> type[Section] | None:
    """The section of a field, or of each value of a map of sections."""
    bare = _bare(annotation)
    if get_origin(bare) is dict:
        bare = _bare(get_args(bare)[1])
    return bare if isinstance(bare, type) and issubclass(bare, Section) else None


def pattern(path: Sequence[str]) -> Path:
    """A key as declarations name it: without the stage, names of plugins as `*`."""
    path = tuple(path)
    if path[:1] == ("stages",) and len(path) > 2:
        path = path[2:]
    found: Path = ()
    for part in path:
        known = declarations().get(found)
        named = known is not None and known.is_map and known.section is not None
        found = (*found, "*" if named else part)
    return found


def declared(path: Sequence[str]) -> Declared | None:
    """What is known of a key; None for an option of a plugin, and for no key."""
    return declarations().get(pattern(path))


def section_at(path: Sequence[str]) -> type[Section] | None:
    """The section of the map at a key; None where names or anything may stand."""
    is_stage = len(path) == 2 and path[0] == "stages"
    if not path or is_stage:
        return anything()
    above = declarations().get(pattern(path[:-1])) if len(path) > 1 else None
    if above is not None and above.is_map:
        return above.section
    known = declared(path)
    return None if known is None or known.is_map else known.section


@functools.cache
def anything() -> type[Section]:
    """A recipe of any method: every key, none of them needed."""
    fields: dict[str, Any] = {}
    for path, known in declarations().items():
        if len(path) == 1 and path[0] != "stages":
            field = copy.copy(known.field)
            field.default = None
            annotation: Any = known.field.annotation
            fields[path[0]] = (annotation | None, field)
    fields["method"] = (Literal[tuple(METHODS)] | None, None)
    fields["stages"] = (dict[str, Any] | None, None)
    return create_model("Recipe", __base__=Section, **fields)


def goes(path: Sequence[str], stated: set[str], changed: set[str]) -> bool:
    """Whether an inherited key goes once keys beside it are `stated` with another
    value; `changed` are those of them that were inherited too.
    """
    known = declared(path)
    if known is None:
        return selector_of(section_at(path[:-1])) in changed
    key = known.key
    belonged = not changed.isdisjoint(key.belongs_to)
    return belonged or not stated.isdisjoint(key.instead_of)


def selector_of(section: type[Section] | None) -> str:
    """The key of a section that names the plugin whose options stand in it; "" where
    there is none.
    """
    if section is None or not issubclass(section, PluginSection):
        return ""
    return section.selector


def value_at(config: Section, path: Sequence[str]) -> Any:
    """The value of a declared key in a config; None where a map above it is absent."""
    value: Any = config
    for name in path:
        value = None if value is None else getattr(value, name)
    return value


def sections_of_plugins() -> dict[str, type[Section]]:
    """By kind of plugin the map in which its options stand beside the core's keys."""
    found: dict[str, type[Section]] = {}
    for path, known in declarations().items():
        section = known.section if known.is_map else section_at(path[:-1])
        chosen = known.is_map or selector_of(section) == path[-1]
        if known.key.plugin and section is not None and chosen:
            found.setdefault(known.key.plugin, section)
    return found


def shared() -> tuple[str, ...]:
    """The keys that a pipeline states once for all its stages."""
    return tuple(
        path[0]
        for path, known in declarations().items()
        if len(path) == 1 and known.key.shared
    )


def of_pipeline() -> tuple[str, ...]:
    """The keys that a pipeline itself has."""
    return tuple(Pipeline.model_fields)


def owned(method: str) -> dict[str, str]:
    """TRL fields that `train` cannot state, with what to do instead."""
    found = dict(METHODS[method].unread)
    for known in declarations().values():
        if method in known.methods:
            for name in (known.key.trl, *known.key.owns):
                if name:
                    found[name] = f"use {known.dotted}"
    found["loss_type"] = "use loss: {name: trl, loss_type: …}"
    return found


def owned_generation_kwargs() -> dict[str, str]:
    """Names in `train.generation_kwargs` that a key of `generation` states."""
    found = {}
    for name, option in sampling.OPTIONS.items():
        for theirs in (name, option.trl, option.transformers, option.vllm):
            if theirs:
                found[theirs] = f"generation.{name}"
    return found


def renamed() -> dict[Path, Path]:
    """Keys of earlier versions, and what they are called now."""
    return {
        tuple(known.key.was.split(".")): path
        for path, known in declarations().items()
        if known.key.was
    }


def matters(path: Sequence[str]) -> bool:
    """Whether a key of a resolved recipe decides the result."""
    known = declarations().get(pattern(path)[:1])
    return known is None or known.key.identity


@dataclass(frozen=True, slots=True)
class Named:
    """A plugin that a recipe names.

    `path` is where: the map with its options, or the name itself. `at` is the key to
    blame when there is no such plugin.
    """

    path: Path
    at: Path
    kind: str
    name: str
    options: Mapping[str, Any]


def named(config: Mapping[str, Any]) -> Iterator[Named]:
    """Every plugin that a recipe (not its stages) names itself.

    What an eval brings along (its data, its prompt) the recipe does not name.
    """
    for path, value in stated(config, ()):
        known = declared(path)
        if known is None or not known.key.plugin:
            continue
        kind = known.key.plugin
        if known.is_map and isinstance(value, Mapping):
            for name, inner in value.items():
                here = (*path, name)
                yield Named(here, here, kind, name, _options(inner, known.section))
        elif isinstance(value, list):
            for index, name in enumerate(value):
                here = (*path, str(index))
                if isinstance(name, str):
                    yield Named(here, here, kind, name, {})
        elif isinstance(value, str):
            section = section_at(path[:-1])
            if selector_of(section) == path[-1]:
                beside: Any = config
                for part in path[:-1]:
                    beside = beside[part]
                options = _options(beside, section)
                yield Named(path[:-1], path, kind, value, options)
            else:
                # a judge may be followed by its model
                yield Named(path, path, kind, value.partition(":")[0], {})
        elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
            yield Named(path, path, kind, value["name"], _options(value, known.section))


def stated(config: Mapping[str, Any], at: Path) -> Iterator[tuple[Path, Any]]:
    """Every declared key that a map states, also within its sections."""
    for name, value in config.items():
        path = (*at, name)
        if path[:1] == ("stages",):
            continue
        known = declared(path)
        if known is not None:
            yield path, value
        inside = known is not None or section_at(path) is not None
        if inside and isinstance(value, Mapping):
            yield from stated(value, path)


def _options(values: object, section: type[Section] | None) -> dict[str, Any]:
    if not isinstance(values, Mapping) or section is None:
        return {}
    return {k: v for k, v in values.items() if k not in section.model_fields}
