"""What the keys of one layer of a recipe mean to those under it."""

from __future__ import annotations

from collections.abc import Mapping

from alignkit.recipe.schema import walk
from alignkit.recipe.tree import DELETE, Key, Node, find, plain


def method_of(tree: Node) -> str:
    node = find(tree, ("method",))
    return "" if node is None else str(node.value)


def names_plugins(key: Key) -> bool:
    """Whether a map's keys name plugins, so that `*` means each of them."""
    known = walk.declared(key)
    return known is not None and known.is_map and bool(known.key.plugin)


def stale(key: Key, base: Mapping[str, Node], over: Mapping[str, Node]) -> set[str]:
    """Keys of `base` that no longer mean anything once `over` is stated."""
    stated = {
        name
        for name, node in over.items()
        if node.value is not DELETE
        and (name not in base or plain(base[name]) != plain(node))
    }
    changed = stated & base.keys()
    return {name for name in base if walk.goes((*key, name), stated, changed)}


def keep_chain(tree: Node, layer: Mapping[str, Node]) -> dict[str, Node]:
    """An overlay's keys; without a model where a stage starts from an earlier one, as
    the pipeline says.
    """
    start = find(tree, ("model", "path"))
    model = layer.get("model")
    chained = (
        start is not None
        and isinstance(start.value, str)
        and start.value.startswith("stage:")
    )
    if not chained or model is None or not isinstance(model.value, dict):
        return dict(layer)
    rest = {
        k: v for k, v in model.value.items() if k not in ("path", "build", "revision")
    }
    return {**layer, "model": Node(rest, model.origin)}
