"""Everything that a recipe names, in training, validation and evals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignkit.plugins import KINDS, effective_options
from alignkit.recipe.plugin_check import TRL_LOSS, is_own_eval, map_at, named_plugins
from alignkit.recipe.schema import Dataset, walk
from alignkit.recipe.tree import Key

if TYPE_CHECKING:
    from alignkit.plugins import Plugin, Registry


@dataclass
class Named:
    """What a recipe, not its stages, names; by the key that names it, an eval's own
    data and prompt by the keys that would change them.
    """

    plugins: dict[Key, Plugin] = field(default_factory=dict)
    # as `data.load_rows` and `data.load_prompt` take them
    data: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    prompts: dict[Key, str | Mapping[str, Any]] = field(default_factory=dict)
    # of the plugins' options, by key
    defaults: dict[Key, Any] = field(default_factory=dict)

    @property
    def distinct(self) -> dict[str, Plugin]:
        """The plugins, each once, by kind and name; with the kit, where two have one of
        that name.
        """
        labelled: dict[str, Plugin] = {}
        for plugin in self.plugins.values():
            label = f"{plugin.kind} {plugin.name}"
            if labelled.setdefault(label, plugin).kit != plugin.kit:
                labelled[f"{plugin.kind} {plugin.kit}/{plugin.name}"] = plugin
        return labelled


def named(recipe: Mapping[str, Any], registry: Registry) -> Named:
    """All that a resolved recipe names.

    Raises:
        PluginError: a plugin that is not there.
    """
    everything = Named()
    for one in named_plugins(recipe, registry):
        if (one.kind, one.name) == TRL_LOSS:
            continue
        if one.kind == "eval" and is_own_eval(map_at(recipe, "evals")[one.name]):
            continue
        plugin = registry.get(one.kind, one.name)
        everything.plugins[(*one.path, one.kind)] = plugin
        for option, value in effective_options(plugin, {}).items():
            everything.defaults[(*one.path, option)] = value
        for other in _in_options(plugin, one.options, registry):
            everything.plugins[(*one.path, other.kind)] = other
    for path, value in walk.stated(recipe, ()):
        known = walk.declared(path)
        if known is None or value is None:
            continue
        if known.section is not None and issubclass(known.section, Dataset):
            everything.data[path] = value
        if known.key.plugin == "prompt":
            everything.prompts[path] = value
    for name, stated in map_at(recipe, "evals").items():
        own = map_at(stated, "data")
        if not is_own_eval(stated):
            benchmark = registry.get("eval", name).value
            split = {"split": stated["split"]} if "split" in stated else {}
            own = {**benchmark.data, **own, **split}
            everything.data["evals", name, "data"] = own
            if benchmark.prompt is not None:
                prompts = everything.prompts
                prompts.setdefault(("evals", name, "prompt"), benchmark.prompt)
        if shown := _examples(stated, own, registry):
            everything.data["evals", name, "shots"] = shown
    for key, spec in everything.data.items():
        source = registry.get("dataset", spec.get("dataset") or "jsonl")
        everything.plugins[(*key, "dataset")] = source
    for key, prompt in everything.prompts.items():
        if isinstance(prompt, str):
            everything.plugins[(*key, "prompt")] = registry.get("prompt", prompt)
    return everything


def _examples(
    stated: Mapping[str, Any], own: Mapping[str, Any], registry: Registry
) -> dict[str, Any]:
    """The rows that an eval's solved questions are drawn from; none where it shows none,
    or its dataset does.
    """
    source = registry.get("dataset", own.get("dataset") or "jsonl")
    if not stated.get("shots") or "shots" in source.options():
        return {}
    whole = {key: value for key, value in own.items() if key != "limit"}
    if "shots_from" in stated:
        return {**whole, "path": stated["shots_from"]}
    return {**whole, "split": "train"}


def _in_options(
    plugin: Plugin, options: Mapping[str, Any], registry: Registry
) -> Iterator[Plugin]:
    """The plugins that options name: an option called as a kind of plugins, such as
    `judge`, names one of them.
    """
    for option, value in effective_options(plugin, options).items():
        if option in KINDS and isinstance(value, str):
            name = value.partition(":")[0]
            if name in registry.names(option):
                yield registry.get(option, name)
