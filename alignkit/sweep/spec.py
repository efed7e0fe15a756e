"""What a sweep varies: a sweep file, or a recipe with several values for a setting."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from alignkit.errors import InputError, RecipeError, nearest
from alignkit.recipe import options, paths, tree, yaml
from alignkit.recipe.schema.key import Count, Section

Node = tree.Node


class Rule(Section):
    """When a variant counts as collapsed and is stopped: by a metric's bound, or by a
    check that is asked of running runs (docs/checks.md).
    """

    metric: str | None = None
    check: str | None = None
    below: float | None = None
    above: float | None = None
    logs: Count = 1
    """How many logged values in a row."""

    def broken_by(self, values: Sequence[float]) -> bool:
        """Whether the last values are all out of bounds; what is no number is so too."""
        last = values[-self.logs :]
        low = -math.inf if self.below is None else self.below
        high = math.inf if self.above is None else self.above
        return len(last) == self.logs and not any(
            low <= value <= high for value in last
        )

    def __str__(self) -> str:
        if self.check is not None:
            return f"check {self.check}"
        bound = f"above {self.above}"
        if self.below is not None:
            bound = f"below {self.below}"
        times = f" {self.logs} times in a row" if self.logs > 1 else ""
        return f"{self.metric} {bound}{times}"


class Equal(Section):
    """What every variant gets the same amount of."""

    equal: Literal["steps", "tokens", "seconds"]


class SweepFile(Section):
    """A sweep file."""

    name: str | None = None
    description: str | None = None
    base: str
    variants: dict[str, dict[str, Any]] | None = None
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = None
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    budget: Equal | None = None
    metric: str | None = None
    stop: list[Rule] = Field(default_factory=list)


@dataclass(frozen=True)
class Spec:
    """What is varied, not yet checked: a change of the base recipe by the variant's
    label.
    """

    name: str
    base: Path
    changes: Mapping[str, Node]
    seeds: Sequence[int] | None = None  # None: the base's own
    budget: str | None = None
    metric: str | None = None
    stop: Sequence[Rule] = ()
    overlays: Sequence[Path] = ()
    sets: Sequence[str] = ()


def is_sweep_file(path: Path) -> bool:
    """A recipe has no `base`."""
    return path.is_file() and "base" in yaml.read(path, "recipe", []).value


def read(
    path: Path,
    *,
    seeds: Sequence[int] | None,
    overlays: Sequence[Path],
    sets: Sequence[str],
) -> Spec:
    """A sweep file; `seeds` replaces its own, `overlays` and `sets` change the base of
    all variants.

    Raises:
        RecipeError: every fault with its place.
    """
    problems: list[str] = []
    root = yaml.read(path.resolve(), "recipe", problems)
    variants = root.value.get("variants")
    # `name:` alone changes nothing
    if variants is not None and isinstance(variants.value, dict):
        named = {
            label: Node({}, node.origin) if node.empty else node
            for label, node in variants.value.items()
        }
        root = put(root, ("variants",), Node(named, variants.origin))
    try:
        file = SweepFile.model_validate(tree.plain(root))
    except ValidationError as error:
        raise RecipeError(
            *problems,
            *(_fault(root, detail) for detail in error.errors(include_url=False)),
        ) from error
    at = {key: node.origin for key, node in root.value.items()}
    for rule in file.stop:
        bounds = (rule.below is not None) + (rule.above is not None)
        if (rule.metric is None) == (rule.check is None):
            problems.append(f"{at['stop']}: stop: a rule needs either metric or check")
        elif bounds != (rule.check is None):
            needs = "either below or above" if rule.metric else "no bound"
            problems.append(f"{at['stop']}: stop: {rule} needs {needs}")
    homes = [path.resolve().parent, *paths.recipe_dirs()]
    base = next(
        (home / file.base for home in homes if (home / file.base).is_file()),
        homes[0] / file.base,
    ).resolve()
    if not base.is_file():
        close = nearest(base.name, [p.name for p in base.parent.glob("*.yaml")])
        problems.append(f"{at['base']}: base: there is no file {file.base}; {close}")
    changes = _changes(file, root, problems)
    if problems:
        raise RecipeError(*problems)
    if seeds is None:
        seeds = file.seeds
    budget = file.budget.equal if file.budget else None
    return Spec(
        file.name or path.stem,
        base,
        changes,
        seeds,
        budget,
        file.metric,
        file.stop,
        overlays,
        sets,
    )


def _changes(file: SweepFile, root: Node, problems: list[str]) -> dict[str, Node]:
    """The change of each variant, by its label."""
    at = {key: node.origin for key, node in root.value.items()}
    if (file.variants is None) == (file.grid is None):
        problems.append(f"{root.origin}: a sweep needs either variants or grid")
    elif file.grid:
        axes = root.value["grid"].value.items()
        return product({key: node.value for key, node in axes})
    elif file.grid is not None:
        problems.append(f"{at['grid']}: grid: the sweep is empty")
    elif file.variants:
        return dict(root.value["variants"].value)
    else:
        problems.append(f"{at['variants']}: variants: the sweep is empty")
    return {}


def from_recipe(
    path: Path,
    *,
    seeds: Sequence[int] | None,
    overlays: Sequence[Path],
    sets: Sequence[str],
) -> Spec:
    """A recipe, where `--set` may give several values: `train.learning_rate=1e-6,1e-5`.

    Raises:
        InputError: nothing varies.
    """
    fixed, axes, problems = [], {}, []  # type: ignore[var-annotated]
    for text in sets:
        where = f"--set {text}"
        key, values = options.halves(text, where, "KEY=VALUE or KEY=VALUE,VALUE,…")
        parts = options.split(values, where)
        if len(parts) < 2:
            fixed.append(text)
        else:
            axes[key] = [
                yaml.parse(part, tree.Origin(text, kind="set"), problems)
                for part in parts
            ]
    if problems:
        raise RecipeError(*problems)
    if not axes and len(seeds or ()) < 2:
        raise InputError(
            "the sweep is empty: vary a setting (--set train.learning_rate=1e-6,1e-5)"
            " or give --seeds 3"
        )
    changes = {"base": Node({}, tree.Origin(str(path)))}
    if axes:
        changes = product(axes)
    return Spec(path.stem, path, changes, seeds, overlays=overlays, sets=fixed)


def seeds_of(text: str | None) -> list[int] | None:
    """The seeds of `--seeds`: how many (`3`), or which (`0,1,2`; `7,` for one).

    Raises:
        InputError: another form.
    """
    if text is None:
        return None
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or text.strip() == "0":
        raise InputError(
            f"--seeds {text}: expected how many (3), or which (0,1,2; 7, for one)"
        )
    if len(words) == 1:
        return list(range(int(text)))
    return [int(word) for word in words]


def product(axes: Mapping[str, Sequence[Node]]) -> dict[str, Node]:
    """Every combination of the values of dotted keys, as changes of a recipe by their
    label.
    """
    changes: dict[str, Node] = {}
    for values in itertools.product(*axes.values()):
        change = Node({}, values[0].origin)
        for key, node in zip(axes, values, strict=True):
            change = put(change, key.split("."), node)
        label = ",".join(
            f"{key.rsplit('.', 1)[-1]}={_word(n)}"
            for key, n in zip(axes, values, strict=True)
        )
        if label in changes:
            raise InputError(
                f"{values[-1].origin}: two variants would be called {label}; give each"
                " value once"
            )
        changes[label] = change
    return changes


def put(node: Node, key: Sequence[str], leaf: Node) -> Node:
    """A copy of a tree with one node set."""
    if not key:
        return leaf
    old = node.value if isinstance(node.value, dict) else {}
    return Node(
        {**old, key[0]: put(old.get(key[0], Node({}, leaf.origin)), key[1:], leaf)},
        node.origin,
    )


def _fault(root: Node, detail: ErrorDetails) -> str:
    """A fault of the sweep file as recipes report theirs."""
    key = tuple(str(part) for part in detail["loc"])
    places = [
        node
        for length in range(len(key), 0, -1)
        if (node := tree.find(root, key[:length])) is not None
    ]
    origin = (places[0] if places else root).origin
    if detail["type"] == "extra_forbidden":
        section: type[Section] = Rule if key[0] == "stop" else SweepFile
        return (
            f"{origin}: {'.'.join(key)}: there is no such key;"
            f" {nearest(key[-1], section.model_fields)}"
        )
    if detail["type"] == "missing":
        return f"{origin}: {'.'.join(key)}: is missing"
    return (
        f"{origin}: {'.'.join(key)}: given {tree.describe(detail['input'])};"
        f" {detail['msg']}"
    )


def _word(node: Node) -> str:
    value = tree.plain(node)
    if not isinstance(value, str):
        value = json.dumps(value, default=str)
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "none"
