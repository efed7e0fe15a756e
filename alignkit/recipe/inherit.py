"""How recipes inherit: `extends`, overlays, `--set`, and the few rules beyond 'maps
merge, the rest replaces'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignkit.errors import RecipeError, nearest
from alignkit.recipe import options
from alignkit.recipe.paths import locate, shown
from alignkit.recipe.renamed import modern
from alignkit.recipe.schema import METHODS, walk
from alignkit.recipe.yaml import (
    DELETE,
    Key,
    Kind,
    Node,
    Origin,
    find,
    parse,
    plain,
    read,
)


class Merger:
    """Merges trees, and collects what is wrong with them. Trees are never changed in
    place: aliases share nodes.
    """

    def __init__(self, recipe_dirs: Sequence[Path] = ()) -> None:
        self.recipe_dirs = tuple(recipe_dirs)
        self.problems: list[str] = []
        self.extended: dict[Path, tuple[Path, ...]] = {}  # what each file read extends
        # deleted by an overlay where there was nothing
        self.deletions: list[tuple[Key, Origin]] = []

    def merge(self, base: Node | None, over: Node, key: Key = ()) -> Node:
        """`over` on top of `base`."""
        names_plugins = _names_plugins(key)
        if over.empty and _names_plugins(key[:-1]):
            over = Node({}, over.origin)  # `name:` alone means no options
        if not isinstance(over.value, dict):
            return self._whole(over, key)
        merged = (
            dict(base.value)
            if base is not None and isinstance(base.value, dict)
            else {}
        )
        stale = _stale(key, merged, over.value)
        for name in stale:
            del merged[name]
        for name, child in over.value.items():
            if (
                name == "*"
                and names_plugins
                and child.origin.kind in ("overlay", "set")
            ):
                for each in merged:
                    merged[each] = self.merge(merged[each], child, (*key, each))
            elif child.value is not DELETE:
                merged[name] = self.merge(merged.get(name), child, (*key, name))
            elif name in merged or name in stale:
                merged.pop(name, None)
            elif child.origin.kind == "overlay":
                self.deletions.append(((*key, name), child.origin))
            else:
                close = nearest(name, merged)
                hint = (
                    close
                    if close.startswith("did you mean")
                    else "the value 'nothing' is written null"
                )
                self._problem(
                    child.origin,
                    (*key, name),
                    f"~ deletes an inherited key, and there is none; {hint}",
                )
        return Node(merged, over.origin)

    def _whole(self, over: Node, key: Key) -> Node:
        """What stands in a list replaces as a whole, so nothing can be deleted there."""
        if over.value is DELETE:
            self._problem(
                over.origin, key, "~ deletes a key; it has no meaning in a list"
            )
            return Node(None, over.origin)
        if isinstance(over.value, list):
            items = [
                self._whole(item, (*key, str(index)))
                for index, item in enumerate(over.value)
            ]
            return Node(items, over.origin)
        if isinstance(over.value, dict):
            return Node(
                {
                    name: self._whole(item, (*key, name))
                    for name, item in over.value.items()
                },
                over.origin,
            )
        return over

    def _problem(self, origin: Origin, key: Key, text: str) -> None:
        self.problems.append(f"{origin}: {'.'.join(key)}: {text}")

    def layers(
        self,
        path: Path,
        kind: Kind,
        seen: dict[Path, Origin | None],
        chain: tuple[Path, ...] = (),
    ) -> list[Node]:
        """The trees of a file and of all it extends, the farthest first; a file that is
        reached twice counts once.
        """
        tree = modern(read(path, kind, self.problems), self.problems)
        parent_kind: Kind = "parent" if kind == "recipe" else kind
        found: list[Node] = []
        parents = self.parents(tree, path)
        self.extended[path] = tuple(parent for parent, _ in parents)
        for parent, origin in parents:
            if parent in (*chain, path):
                cycle = (*chain, path)[(*chain, path).index(parent) :]
                names = " -> ".join(shown(str(p)) for p in (*cycle, parent))
                raise RecipeError(f"{origin}: extends: a cycle: {names}")
            if parent not in seen:
                seen[parent] = origin
                found += self.layers(parent, parent_kind, seen, (*chain, path))
        own = {name: child for name, child in tree.value.items() if name != "extends"}
        if isinstance(own.get("stages"), Node) and isinstance(
            own["stages"].value, dict
        ):
            stages = {
                name: self._stage(name, stage, path, chain)
                for name, stage in own["stages"].value.items()
            }
            own["stages"] = Node(stages, own["stages"].origin)
        return [*found, Node(own, tree.origin)]

    def parents(self, tree: Node, path: Path) -> list[tuple[Path, Origin]]:
        """The files that `extends` of a tree names, with where each is named."""
        node = tree.value.get("extends")
        if node is None:
            return []
        named = node.value if isinstance(node.value, list) else [node]
        found = []
        for item in named:
            if not isinstance(item.value, str):
                self._problem(
                    item.origin,
                    ("extends",),
                    "expected the path of a recipe, or a list of them",
                )
                continue
            try:
                found.append(
                    (locate(item.value, path.parent, self.recipe_dirs), item.origin)
                )
            except RecipeError as error:
                self._problem(item.origin, ("extends",), str(error))
        return found

    def _stage(
        self, name: str, stage: Node, path: Path, chain: tuple[Path, ...]
    ) -> Node:
        """A stage with what it extends. What a pipeline says once for all its stages is
        not inherited.
        """
        if not isinstance(stage.value, dict) or "extends" not in stage.value:
            return stage
        base = Node({}, stage.origin)
        seen: dict[Path, Origin | None] = {}
        for parent, origin in self.parents(stage, path):
            if parent in (*chain, path):
                raise RecipeError(
                    f"{origin}: stages.{name}.extends: a cycle: a stage extends its own"
                    " pipeline"
                )
            for layer in self.layers(parent, "parent", seen, (*chain, path)):
                base = self.merge(base, layer)
        for key in (*walk.shared(), "name", "description"):
            base.value.pop(key, None)
        return self.merge(
            base,
            Node(
                {k: v for k, v in stage.value.items() if k != "extends"}, stage.origin
            ),
        )

    def overlay(self, tree: Node, over: Node) -> Node:
        """A tree with one overlay file over it: its common keys, then its block for the
        recipe's method.
        """
        blocks = over.value.get("methods", Node({}, over.origin))
        common = {k: v for k, v in over.value.items() if k not in ("methods", "method")}
        if not isinstance(blocks.value, dict):
            self._problem(
                blocks.origin, ("methods",), "expected a map from methods to keys"
            )
            return tree
        for name, block in blocks.value.items():
            if name not in METHODS:
                self._problem(
                    block.origin,
                    ("methods", name),
                    f"there is no such method; {nearest(name, METHODS)}",
                )
            elif not isinstance(block.value, dict):
                self._problem(
                    block.origin, ("methods", name), "expected a map of recipe keys"
                )
                return tree
        method, wanted = _method(tree), over.value.get("method")
        if wanted is not None and wanted.value != method:
            text = (
                f"this overlay is for {plain(wanted)}, the recipe's method is {method};"
                " it does not apply"
            )
            self._problem(wanted.origin, ("method",), text)
            return tree
        if method != "pipeline":
            return self._laid(tree, common, blocks.value, (), over.origin)
        own = {k: v for k, v in common.items() if k in walk.of_pipeline()}
        each = {k: v for k, v in common.items() if k not in walk.of_pipeline()}
        tree = self._laid(tree, own, blocks.value, (), over.origin)
        stages = tree.value.get("stages")
        if stages is None or not isinstance(stages.value, dict):
            return tree
        laid = {}
        for name, stage in stages.value.items():
            laid[name] = self._laid(
                stage, each, blocks.value, ("stages", name), over.origin
            )
        return Node({**tree.value, "stages": Node(laid, stages.origin)}, tree.origin)

    def _laid(
        self,
        tree: Node,
        common: Mapping[str, Node],
        blocks: Mapping[str, Node],
        key: Key,
        at: Origin,
    ) -> Node:
        method = _method(tree)
        for layer in (common, blocks[method].value if method in blocks else {}):
            tree = self.merge(tree, Node(_keep_chain(tree, layer), at), key)
        return tree

    def set(self, tree: Node, text: str) -> Node:
        """A tree with one `key.sub=value` over it; in a pipeline, what only stages use
        goes to each that uses it.

        Raises:
            RecipeError: for a text of another form, or a value that is no YAML.
        """
        expected = "key.sub=value, such as train.learning_rate=1e-6 (key=~ deletes)"
        dotted, word = options.halves(text, f"--set {text}", expected)
        names = dotted.split(".")
        node = parse(word, Origin(text, kind="set"), self.problems)
        for name in reversed(names):
            node = Node({name: node}, node.origin)
        node = modern(node, self.problems)
        stages = tree.value.get("stages")
        if stages is None or not isinstance(stages.value, dict):
            return self.merge(tree, node)
        (first,) = node.value
        if first == "stages":
            if len(names) > 2 and names[1] not in stages.value:
                raise RecipeError(
                    f"--set {text}: there is no stage '{names[1]}';"
                    f" {nearest(names[1], stages.value)}"
                )
            return self.merge(tree, node)
        known = walk.declared((first,))
        users = () if known is None else known.methods
        stated_once = first in walk.of_pipeline()
        if stated_once or not any(_method(s) in users for s in stages.value.values()):
            return self.merge(tree, node)
        laid = {
            name: (
                self._laid(stage, node.value, {}, ("stages", name), node.origin)
                if _method(stage) in users
                else stage
            )
            for name, stage in stages.value.items()
        }
        return Node({**tree.value, "stages": Node(laid, stages.origin)}, tree.origin)


def _method(tree: Node) -> str:
    node = find(tree, ("method",))
    return "" if node is None else str(node.value)


def _names_plugins(key: Key) -> bool:
    """Whether a map's keys name plugins, so that `*` means each of them."""
    known = walk.declared(key)
    return known is not None and known.is_map and bool(known.key.plugin)


def _stale(key: Key, base: Mapping[str, Node], over: Mapping[str, Node]) -> set[str]:
    """Keys of `base` that no longer mean anything once `over` is stated."""
    stated = {
        name
        for name, node in over.items()
        if node.value is not DELETE
        and (name not in base or plain(base[name]) != plain(node))
    }
    changed = stated & base.keys()
    return {name for name in base if walk.goes((*key, name), stated, changed)}


def _keep_chain(tree: Node, layer: Mapping[str, Node]) -> dict[str, Node]:
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
