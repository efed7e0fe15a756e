"""What differs between two recipes, and recipes as YAML."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.recipe.model import Recipe
from alignkit.recipe.yaml import DELETE, Key, Origin, plain, scalar, walk

_OLD_YAML = re.compile(r"yes|no|on|off|y|n|[-+.\d][-+.\d_:e]*")  # not text to YAML 1.1


class _Absent:
    def __repr__(self) -> str:
        return "-"


ABSENT = _Absent()  # one side does not state the key


@dataclass(frozen=True, slots=True)
class Difference:
    """One key with its value on both sides; ABSENT and None where a side does not have
    it.
    """

    path: Key
    a: Any
    a_origin: Origin | None
    b: Any
    b_origin: Origin | None
    # the key below which all differs: that of a whole map that one side does not have
    whole: Key

    @property
    def key(self) -> str:
        """The dotted key."""
        return ".".join(self.path)


def differences(a: Recipe, b: Recipe) -> list[Difference]:
    """What differs from recipe `a` in recipe `b`."""
    return diff_resolved(a.resolved, b.resolved, a.origins, b.origins)


def diff_resolved(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    a_origins: Mapping[str, Origin] | None = None,
    b_origins: Mapping[str, Origin] | None = None,
) -> list[Difference]:
    """What differs between two resolved recipes, leaf by leaf (a list is a leaf),
    sorted as they stand.
    """
    found = []
    for path, whole, old, new in _changes(a, b, ()):
        dotted = ".".join(path)
        origins = (a_origins or {}).get(dotted), (b_origins or {}).get(dotted)
        found.append(Difference(path, old, origins[0], new, origins[1], whole))
    return found


def _changes(
    a: Mapping[str, Any], b: Mapping[str, Any], path: Key
) -> Iterator[tuple[Key, Key, Any, Any]]:
    """(leaf, what differs as a whole, old, new)."""
    for name in dict.fromkeys([*a, *b]):
        here, old, new = (*path, name), a.get(name, ABSENT), b.get(name, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, here)
        # 1 and true are equal to Python and not to a recipe; 1 and 1.0 are equal to
        # both
        elif old != new or isinstance(old, bool) != isinstance(new, bool):
            before, after = dict(_leaves(old, here)), dict(_leaves(new, here))
            for leaf in dict.fromkeys([*before, *after]):
                yield leaf, here, before.get(leaf, ABSENT), after.get(leaf, ABSENT)


def diff_against_parent(recipe: Recipe) -> list[Difference]:
    """How a recipe changes what it extends; where it extends nothing, how overlays and
    `--set` change it.
    """
    sides = []
    for node in (recipe.base, recipe.stated):
        origins = {".".join(key): child.origin for key, child in walk(node)}
        sides.append(
            (
                {
                    k: v
                    for k, v in plain(node).items()
                    if k not in ("name", "description")
                },
                origins,
            )
        )
    (base, base_origins), (stated, origins) = sides
    return diff_resolved(base, stated, base_origins, origins)


def as_recipe(differences: Iterable[Difference]) -> dict[str, Any]:
    """The differences as a partial recipe that turns the first side into the second."""
    found: dict[str, Any] = {}
    gone = []
    for difference in differences:
        if difference.b is ABSENT:
            gone.append(difference.whole)
        else:
            _below(found, difference.path[:-1])[difference.path[-1]] = difference.b
    for path in gone:
        # where something stands by now, it replaces the old value already
        _below(found, path[:-1]).setdefault(path[-1], DELETE)
    return found


def _below(tree: dict[str, Any], path: Key) -> dict[str, Any]:
    for name in path:
        tree = tree.setdefault(name, {})
    return tree


def to_yaml(values: Mapping[str, Any]) -> str:
    """A recipe as YAML text that reads back equal, and reads alike to YAML 1.1 readers."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Representer.add_representer(str, _text)
    Representer.add_representer(float, _number)
    Representer.add_representer(
        type(DELETE), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "~")
    )
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def _text(representer: Any, value: str) -> Any:
    style = None
    if "\n" in value:
        # a block would turn other line breaks into \n
        style = "|" if value.replace("\n", "").isprintable() else '"'
    elif not isinstance(scalar(value), str) or _OLD_YAML.fullmatch(value.lower()):
        style = "'"
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _number(representer: Any, value: float) -> Any:
    text = (
        repr(value)
        if math.isfinite(value)
        else repr(value).replace("inf", ".inf").replace("nan", ".nan")
    )
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # 1e-05 is text in YAML 1.1
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def _leaves(value: Any, path: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            yield from _leaves(child, (*path, name))
    elif value is not ABSENT:
        yield path, value
