"""The plugins a recipe names, and whether they exist, fit the method, and have the
options stated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from alignkit.errors import PluginError, nearest
from alignkit.recipe.schema import section_at
from alignkit.recipe.yaml import Key
from alignkit.types import NORMALIZATIONS

if TYPE_CHECKING:
    from alignkit.plugins import Registry

Named = tuple[Key, str, str, dict[str, Any]]  # where, kind, name, options
# kinds that a value names, not a key
_SELECTORS = {"loss": "name", "advantage": "name", "dataset": "dataset"}
TRL_LOSS = ("loss", "trl")  # TRL's own loss: known to the trainers, no plugin


def check_plugins(
    config: Mapping[str, Any], method: str, registry: Registry
) -> Iterator[tuple[Key, str]]:
    """(key, problem) for every plugin of a recipe (not of its stages) that is not there
    or stated wrongly.
    """
    from alignkit.plugins import check_options

    for key, kind, name, options in named_plugins(config, registry):
        if (kind, name) == TRL_LOSS:
            continue
        try:
            plugin = registry.get(kind, name)
        except PluginError as error:
            yield (*key, _SELECTORS[kind]) if kind in _SELECTORS else key, str(error)
            continue
        section = section_at(key)
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
        if kind == "loss":
            yield from _loss(
                key, plugin.value, method, map_at(config, "loss").get("normalize")
            )


def _loss(
    key: Key, loss: Any, method: str, normalize: Any
) -> Iterator[tuple[Key, str]]:
    trained = "sft" if method == "expert_iteration" else method
    if trained not in loss.methods:
        yield (
            (
                *key,
                "name",
            ),
            f"loss '{loss.name}' is for {', '.join(loss.methods)}, not for {method}",
        )
    if normalize in NORMALIZATIONS and normalize not in loss.normalize:
        takes = (
            f"expected one of {', '.join(loss.normalize)}"
            if loss.normalize
            else "it takes none"
        )
        yield (
            (
                *key,
                "normalize",
            ),
            f"loss '{loss.name}' cannot be normalised by {normalize}; {takes}",
        )


def named_plugins(
    config: Mapping[str, Any], registry: Registry | None = None
) -> Iterator[Named]:
    """Every plugin that a recipe (not its stages) names. An eval's own dataset is known
    by the registry.
    """
    data, evals, callbacks = (
        map_at(config, "data"),
        map_at(config, "evals"),
        config.get("callbacks"),
    )
    found: list[tuple[Key, str, Any, Mapping[str, Any]]] = []
    for kind in ("loss", "advantage"):
        found.append(
            ((kind,), kind, map_at(config, kind).get("name"), map_at(config, kind))
        )
    for part in ("train", "validation"):
        found.append(
            (
                ("data", part),
                "dataset",
                map_at(data, part).get("dataset"),
                map_at(data, part),
            )
        )
    rewards = map_at(config, "rewards")
    found += [
        (("rewards", name), "reward", name, map_at(rewards, name)) for name in rewards
    ]
    for name in evals:
        stated = map_at(evals, name)
        found.append((("evals", name), "eval", name, stated))
        its = map_at(stated, "data")
        dataset = its.get("dataset")
        if (
            its
            and dataset is None
            and registry is not None
            and name in registry.names("eval")
        ):
            dataset = registry.get("eval", name).value.data.get("dataset")
        found.append((("evals", name, "data"), "dataset", dataset, its))
        judge = stated.get("judge")
        if isinstance(judge, str):
            found.append(
                (("evals", name, "judge"), "judge", judge.partition(":")[0], {})
            )
    found += [(key, "prompt", prompt, {}) for key, prompt in prompts_in(config)]
    for index, name in enumerate(callbacks if isinstance(callbacks, list) else ()):
        found.append((("callbacks", str(index)), "callback", name, {}))
    for key, kind, name, stated in found:
        if isinstance(name, str):
            section = section_at(key)
            core = section.model_fields if section else {}
            yield key, kind, name, {k: v for k, v in stated.items() if k not in core}


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
