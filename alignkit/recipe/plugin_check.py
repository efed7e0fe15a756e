"""The plugins a recipe names, and whether they exist, fit the method, and have the
options stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import PluginError, nearest
from alignkit.recipe.schema import walk
from alignkit.recipe.tree import Key

if TYPE_CHECKING:
    from alignkit.plugins import Registry

TRL_LOSS = ("loss", "trl")  # TRL's own loss: known to the trainers, no plugin


def check_plugins(
    config: Mapping[str, Any], registry: Registry
) -> Iterator[tuple[Key, str]]:
    """(key, problem) for every plugin of a recipe (not of its stages) that is not there
    or stated wrongly.
    """
    from alignkit.plugins import check_options

    for named in named_plugins(config, registry):
        key, kind, options = named.path, named.kind, named.options
        if (kind, named.name) == TRL_LOSS:
            continue
        entry = map_at(map_at(config, "evals"), named.name) if kind == "eval" else {}
        if is_own_eval(entry):
            yield from _own_eval(named, entry, registry)
            continue
        try:
            plugin = registry.get(kind, named.name)
        except PluginError as error:
            lacking = "; rows of one's own need `reward` beside `data`"
            yield named.at, str(error) + (lacking if "data" in entry else "")
            continue
        if kind == "dataset" and plugin.value.code:
            yield from _outside_kits(config, key, registry)
        section = walk.section_at(key)
        for option, text in check_options(plugin, options):
            close = (
                nearest(option, section.model_fields)
                if section and option in options
                else ""
            )
            yield (
                (*key, option),
                text + (f"; {close}" if close.startswith("did you mean") else ""),
            )


def is_own_eval(entry: object) -> bool:
    """Whether what stands under `evals.NAME` is rows with a reward, and no plugin."""
    return isinstance(entry, Mapping) and "reward" in entry


def _own_eval(
    named: walk.Named, entry: Mapping[str, Any], registry: Registry
) -> Iterator[tuple[Key, str]]:
    """What is wrong with rows that a reward grades: the name is new, the rows are
    there, and no key is unknown.
    """
    from alignkit.plugins import NAME

    name, known = named.name, registry.names("eval")
    if name in known:
        yield (
            (*named.path, "reward"),
            f"eval '{name}' has a score of its own; rows that a reward grades need"
            " another name",
        )
    elif "data" not in entry:
        yield (
            named.at,
            f"there is no eval '{name}'; {nearest(name, known)}; rows of one's own need"
            " `data` beside `reward`",
        )
    elif not NAME.fullmatch(name):
        yield named.at, f"{name!r} cannot be an eval's name; use letters, digits, _ - ."
    section = walk.section_at(named.path)
    for option in named.options:
        keys = section.model_fields if section else ()
        yield (*named.path, option), f"there is no such key; {nearest(option, keys)}"


def _outside_kits(
    config: Mapping[str, Any], key: Key, registry: Registry
) -> Iterator[tuple[Key, str]]:
    """Refuse a path with code in no kit: running a stranger's must be asked for on the
    command line.
    """
    stated: Any = config
    for name in key:
        stated = stated[name]
    path = stated.get("path")
    roots = [kit.root.resolve() for kit in registry.kits]
    if isinstance(path, str) and not any(
        Path(path).resolve().is_relative_to(root) for root in roots
    ):
        yield (
            (*key, "path"),
            f"{path} may hold code that runs, so in a recipe it must lie in a kit: beside"
            " the recipe's own folder `recipes/`, or below --kit DIR",
        )


def refuse_taken(registry: Registry) -> None:
    """Refuse plugins with an option that a recipe could not state: beside the options
    of a plugin of its kind the name means something to the core.

    Raises:
        PluginError: one problem per option.
    """
    problems = []
    for kind, section in walk.sections_of_plugins().items():
        for plugin in registry.all(kind):
            for name in sorted(plugin.options().keys() & section.model_fields.keys()):
                problems.append(
                    f"{plugin.where}: {kind} '{plugin.name}' cannot have an option"
                    f" '{name}': in a recipe it means something else there; call it"
                    " another name"
                )
    if problems:
        raise PluginError(*problems)


def named_plugins(
    config: Mapping[str, Any], registry: Registry | None = None
) -> Iterator[walk.Named]:
    """Every plugin that a recipe (not its stages) names, and the dataset of an eval of
    which it changes an option: that the registry knows.
    """
    yield from walk.named(config)
    evals = map_at(config, "evals")
    for name in evals:
        changes = map_at(map_at(evals, name), "data")
        if changes and "dataset" not in changes and registry is not None:
            own = _own_data(name, evals[name], registry)
            if isinstance(own.get("dataset"), str):
                path = ("evals", name, "data")
                options = {
                    k: v
                    for k, v in {**own, **changes}.items()
                    if walk.declared((*path, k)) is None
                }
                yield walk.Named(path, path, "dataset", own["dataset"], options)


def _own_data(name: str, entry: object, registry: Registry) -> Mapping[str, Any]:
    """The data that an eval brings along, and a recipe's `data` changes; none of an
    unknown eval.
    """
    if is_own_eval(entry):
        return {"dataset": "jsonl"}
    try:
        data: Mapping[str, Any] = registry.get("eval", name).value.data
    except PluginError:
        return {}
    return data


def prompts_in(config: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Every prompt of a recipe with its key."""
    yield ("data", "prompt"), map_at(config, "data").get("prompt")
    for name in map_at(config, "evals"):
        yield (
            ("evals", name, "prompt"),
            map_at(map_at(config, "evals"), name).get("prompt"),
        )


def map_at(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The map under a name; an empty one where there is none, or something else stands."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}
