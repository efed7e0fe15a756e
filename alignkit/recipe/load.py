"""Load a recipe: resolve what it extends, apply overlays and `--set`, check all of it,
and keep where values stand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from alignkit.errors import RecipeError
from alignkit.recipe import paths, trl
from alignkit.recipe.check import Checker
from alignkit.recipe.inherit import Merger
from alignkit.recipe.model import DEFAULT, Recipe
from alignkit.recipe.paths import expanded, is_file, is_folder, locate
from alignkit.recipe.schema import Config, Pipeline, Prompt, walk
from alignkit.recipe.schema.methods import Started
from alignkit.recipe.tree import Key, Node, Origin, find, plain

if TYPE_CHECKING:
    from alignkit.plugins import Registry


def load(
    path: Path | str,
    overlays: Sequence[Path | str] = (),
    sets: Sequence[str] = (),
    registry: Registry | None = None,
    recipe_dirs: Sequence[Path] | None = None,
    change: Node | None = None,
) -> Recipe:
    """The recipe of a file, with overlay files, `key.sub=value` texts, and last a
    `change` (a sweep's variant) over it.

    With a registry, plugins and their options are checked too. `recipe_dirs` are kits'
    recipes folders, where a file is looked for that does not lie beside the one that
    names it: those that come with alignkit.

    Raises:
        RecipeError: all faults at once, each `file:line:column: key: given, expected,
            nearest`.
    """
    recipe_dirs = paths.recipe_dirs() if recipe_dirs is None else recipe_dirs
    merger = Merger(recipe_dirs)
    file = locate(str(path), Path.cwd(), recipe_dirs)
    layers = merger.layers(file, "recipe", {})
    base = Node({}, layers[-1].origin)
    for layer in layers[:-1]:
        # a child does not go by its parent's name
        named = ("name", "description")
        base = merger.merge(
            base,
            Node(
                {k: v for k, v in layer.value.items() if k not in named}, layer.origin
            ),
        )
    own = tree = merger.merge(base, layers[-1])
    for overlay in overlays:
        for layer in merger.layers(
            locate(str(overlay), Path.cwd(), recipe_dirs), "overlay", {}
        ):
            tree = merger.overlay(tree, layer)
    for text in sets:
        tree = merger.set(tree, text)
    if change is not None:
        tree = merger.merge(tree, change)
    if "name" not in tree.value:
        tree = Node({"name": Node(file.stem, DEFAULT), **tree.value}, tree.origin)
    tree = _absolute(tree)
    checker = Checker(tree, registry)
    config = checker.run(_filled(tree))
    for key, origin in merger.deletions:
        checker.deletion(key, origin)
    problems = dict.fromkeys([*merger.problems, *checker.problems])
    if problems or config is None:
        raise RecipeError(*problems)
    parents = merger.extended[file]
    return _recipe(file, config, tree, parents, _absolute(base if parents else own))


def _filled(tree: Node) -> dict[str, Any]:
    """The tree as plain values; each stage with its name and what the pipeline says for
    all of them.
    """
    config = plain(tree)
    shared = {key: config[key] for key in walk.shared() if key in config}
    stages = config.get("stages")
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            stages[name] = {**stage, **shared, "name": name}
    return config


def _recipe(
    file: Path, config: Config, tree: Node, parents: tuple[Path, ...], base: Node
) -> Recipe:
    stages = {}
    stated = config.stages if isinstance(config, Pipeline) else {}
    for name, stage in stated.items():
        shared = {key: tree.value[key] for key in walk.shared() if key in tree.value}
        node = tree.value["stages"].value[name]
        stages[name] = _recipe(
            file, stage, Node({**node.value, **shared}, node.origin), (), node
        )
    resolved = _dump(config)
    for stage in resolved.get("stages", {}).values():
        for key in ("name", *walk.shared()):
            stage.pop(key, None)
    return Recipe(
        file,
        config,
        resolved,
        dict(_origins(resolved, tree)),
        parents,
        tree,
        base,
        stages,
    )


def _dump(section: BaseModel) -> dict[str, Any]:
    """A section as a recipe states it, defaults included; nothing stands for what is
    unset or empty.
    """
    found: dict[str, Any] = {}
    for name in sorted(type(section).model_fields, key=_last):
        value = _plain(section.__dict__[name])
        # an empty map or list that was stated may change what is inherited; as a
        # default it says nothing
        if value is not None and (
            name in section.model_fields_set or value not in ({}, [])
        ):
            found[name] = value
    return {**found, **(section.model_extra or {})}


def _last(name: str) -> bool:
    """How a run is started and kept stands at the end of a recipe."""
    return name in Started.model_fields


def _plain(value: Any) -> Any:
    if isinstance(value, Prompt) and value.name is not None:
        return value.name
    if isinstance(value, BaseModel):
        return _dump(value)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return value


def _origins(
    resolved: Mapping[str, Any], tree: Node | None, prefix: str = ""
) -> Iterator[tuple[str, Origin]]:
    for name, value in resolved.items():
        node = None if tree is None else find(tree, (name,))
        yield prefix + name, DEFAULT if node is None else node.origin
        if isinstance(value, dict):
            yield from _origins(value, node, f"{prefix}{name}.")


def _absolute(node: Node, key: Key = ()) -> Node:
    """The tree with every local path absolute: a path is relative to the file that
    states it.
    """
    if isinstance(node.value, dict):
        return Node(
            {k: _absolute(child, (*key, k)) for k, child in node.value.items()},
            node.origin,
            node.empty,
        )
    if not isinstance(node.value, str) or node.origin.kind == "default":
        return node
    folder = Path.cwd() if node.origin.kind == "set" else Path(node.origin.file).parent
    given = expanded(node.value)
    beside = Path(os.path.normpath(folder / given))
    known = walk.declared(key)
    kind = "" if known is None else known.key.path
    if kind == "file":
        return Node(str(beside), node.origin)
    if kind == "model" and not node.value.startswith("stage:"):
        marked = given.is_absolute() or node.value.startswith(("./", "../"))
        # a run is named from where one stands, as `align run` prints it
        here = Path.cwd() / given
        for candidate in (beside, here):
            if marked or is_folder(candidate):
                return Node(str(candidate), node.origin)
    # a field of TRL's that takes a map may name a file that holds it
    in_train = len(key) > 1 and key[-2] == "train"
    if in_train and is_file(beside) and trl.may_name_a_file(key[-1]):
        return Node(str(beside), node.origin)
    return node
