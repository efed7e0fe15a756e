"""Keys of earlier versions: read under their names of today, which are said."""

from __future__ import annotations

import logging

from alignkit.recipe.schema import walk
from alignkit.recipe.yaml import Key, Node, find

log = logging.getLogger(__name__)


def modern(tree: Node, problems: list[str]) -> Node:
    """A file's tree with the keys of earlier versions under their names of today."""
    if not isinstance(tree.value, dict):
        return tree
    for below in ("stages", "methods"):
        inner = tree.value.get(below)
        if isinstance(inner, Node) and isinstance(inner.value, dict):
            parts = {k: modern(part, problems) for k, part in inner.value.items()}
            tree = Node({**tree.value, below: Node(parts, inner.origin)}, tree.origin)
    for old, new in walk.renamed().items():
        node = find(tree, old)
        if node is None:
            continue
        old_name, new_name = ".".join(old), ".".join(new)
        tree = _without(tree, old)
        if find(tree, new) is not None:
            problems.append(
                f"{node.origin}: {old_name}: is now called {new_name}, which is stated"
                " too; state it once"
            )
            continue
        log.warning("%s: %s is now called %s", node.origin, old_name, new_name)
        tree = _with(tree, new, node)
    return tree


def _without(tree: Node, key: Key) -> Node:
    rest = dict(tree.value)
    if len(key) == 1:
        del rest[key[0]]
    else:
        rest[key[0]] = _without(rest[key[0]], key[1:])
        if not rest[key[0]].value:
            del rest[key[0]]
    return Node(rest, tree.origin)


def _with(tree: Node, key: Key, node: Node) -> Node:
    if not key:
        return node
    known = tree.value if isinstance(tree.value, dict) else {}
    inner = known.get(key[0], Node({}, node.origin))
    return Node({**known, key[0]: _with(inner, key[1:], node)}, tree.origin)
