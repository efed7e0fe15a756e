"""Kits: folders with any of recipes/, rewards/, evals/, plugins/, importable as
`alignkit.kits.<name>`.

A mounted kit is a synthetic package whose `__path__` is the kit's folder, so plugin
files are imported by the ordinary import system and their functions pickle. Mounts are
repeated in child processes from `ALIGN_MOUNTS`, which gives align commands among them
the kits of their parent.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alignkit import json_text
from alignkit.errors import PluginError

PLUGIN_FOLDERS = ("rewards", "evals", "plugins")
FOLDERS = ("recipes", *PLUGIN_FOLDERS)
BUILTIN = "builtin"
_MOUNTS = "ALIGN_MOUNTS"


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit: its name (a Python identifier) and its folder."""

    name: str
    root: Path

    def plugin_files(self) -> list[Path]:
        """The plugin files, sorted. A file whose name starts with `_` is a helper, not
        a plugin.
        """
        found = [
            p for folder in PLUGIN_FOLDERS for p in (self.root / folder).glob("*.py")
        ]
        return sorted(p for p in found if not p.name.startswith("_"))

    def recipes(self) -> list[Path]:
        """All recipe files, recursively, sorted."""
        return sorted((self.root / "recipes").rglob("*.yaml"))


def builtin() -> Kit:
    """The kit that comes with alignkit: `alignkit/kit` in a wheel, the repository in a
    checkout.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / "kit"
    return Kit(BUILTIN, inside if inside.is_dir() else package.parent)


def at(folder: Path | str, asked_by: str) -> Kit:
    """The kit in a folder.

    Raises:
        PluginError: when there is no such folder, or it holds none of the kit's
            folders.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise PluginError(
            f"{asked_by}: {folder} is not a folder; a kit is a folder with any of"
            f" {', '.join(FOLDERS)}"
        )
    if not _is_kit(root):
        raise PluginError(
            f"{asked_by}: {root} is no kit: it holds none of the folders"
            f" {', '.join(FOLDERS)}"
        )
    return Kit(BUILTIN if _is_builtin(root) else _identifier(root.name), root)


def of_recipe(recipe: Path) -> list[Kit]:
    """The kit a recipe file lies in: the parent of its `recipes/` folder.

    A path where there is no file lies in no kit, whatever its folders are called, and
    neither does what lies in the folder of a run or a sweep: that is data, and may have
    come from elsewhere.
    """
    path = recipe.resolve()
    if not path.is_file() or made_folder(path) is not None:
        return []
    for folder in path.parents:
        if folder.name == "recipes":
            root = folder.parent
            name = BUILTIN if _is_builtin(root) else _identifier(root.name)
            return [Kit(name, root)]
    return []


def made_folder(file: Path) -> Path | None:
    """The folder of the run or sweep that a file lies in."""
    found = [folder for folder in file.parents if _is_made(folder)]
    return found[0] if found else None


def recorded(folder: Path) -> list[str]:
    """The folders of the kits that a run or sweep was started with, as its folder says:
    for the user to read, never to be mounted.
    """
    roots: list[object] = []
    for name in ("manifest.json", "sweep.json"):
        try:
            named = json_text.load((folder / name).read_bytes())["kits"]
            if isinstance(named, dict):
                named = [root for kit, root in named.items() if kit != BUILTIN]
            roots += named
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return sorted({root for root in roots if isinstance(root, str)})


def find(recipes: Iterable[Path] = (), folders: Sequence[Path | str] = ()) -> list[Kit]:
    """All kits in force: those of the process that started this one, the recipes' own,
    `--kit` folders, `ALIGN_KITS`, installed packages', the built-in one.

    `recipes` are the files that are read, not paths as they were typed: a built-in
    recipe brings no folder of the user's. The bare current directory is never among the
    kits: running a stranger's code must be asked for. Copies of the built-in kit (an
    installed one and a checkout) are one kit: the first in this order.
    """
    kits = [kit for recipe in recipes for kit in of_recipe(recipe)]
    kits += [at(folder, "--kit") for folder in folders]
    # one that was asked for comes before the one that is just there
    kits = [kit for kit in kits if kit != builtin()] + _everywhere()
    unique: dict[Path, Kit] = {}
    for kit in [*_inherited, *kits]:
        unique.setdefault(kit.root.resolve(), kit)
    by_name: dict[str, Kit] = {}
    for kit in unique.values():
        other = by_name.setdefault(kit.name, kit)
        if other is not kit and kit.name != BUILTIN:
            raise PluginError(
                f"two kits are named '{kit.name}': {other.root} and {kit.root}; rename a"
                " folder"
            )
    # others use its helpers, and override nothing of it
    return sorted(by_name.values(), key=lambda kit: kit.name != BUILTIN)


def flags(kits: Iterable[Kit]) -> list[str]:
    """What has to be typed for these kits to be found by a command whose recipe lies in
    none of them.
    """
    known = {kit.root.resolve() for kit in _everywhere()}
    roots = [kit.root for kit in kits if kit.root.resolve() not in known]
    return [part for root in roots for part in ("--kit", str(root))]


def command(kits: Iterable[Kit], *words: str | Path) -> str:
    """An align command as it has to be typed to have these kits."""
    return shlex.join(["align", *map(str, words), *flags(kits)])


def _everywhere() -> list[Kit]:
    """The kits that every command has."""
    from importlib.metadata import entry_points

    kits = []
    for folder in filter(None, os.environ.get("ALIGN_KITS", "").split(os.pathsep)):
        kits.append(at(folder, "ALIGN_KITS"))
    for point in entry_points(group="alignkit.kits"):
        kits.append(Kit(_identifier(point.name), _entry_root(point.name, point.value)))
    return [*kits, builtin()]


def mount(kit: Kit) -> ModuleType:
    """Make the kit importable as `alignkit.kits.<name>`, here and in processes started
    from here.
    """
    package = _register(kit.name, str(kit.root))
    mounts = json.loads(os.environ.get(_MOUNTS, "{}"))
    os.environ[_MOUNTS] = json.dumps({**mounts, kit.name: str(kit.root)})
    return package


def mounted() -> list[Kit]:
    """The kits mounted in this process or in the one that started it, in that order."""
    return [
        Kit(name, Path(root))
        for name, root in json.loads(os.environ.get(_MOUNTS, "{}")).items()
    ]


def _is_kit(root: Path) -> bool:
    return any((root / name).is_dir() for name in FOLDERS)


def _is_made(folder: Path) -> bool:
    """Whether it is the folder of a run or a sweep."""
    names = ("sweep.json",), ("manifest.json", "recipe.yaml")
    return any(all((folder / name).is_file() for name in each) for each in names)


def _is_builtin(root: Path) -> bool:
    """Whether the kit in a folder is a copy of the built-in one, in a checkout or a
    wheel.
    """
    packages = (root / "alignkit", root.parent)
    return any(
        p.name == "alignkit" and (p / "hookspecs.py").is_file() for p in packages
    )


def _register(name: str, root: str) -> ModuleType:
    dotted = f"{__name__}.{name}"
    present = sys.modules.get(dotted)
    if present is not None and list(present.__path__) == [root]:
        return present
    for loaded in [
        key for key in sys.modules if key == dotted or key.startswith(dotted + ".")
    ]:
        del sys.modules[loaded]
    package = ModuleType(dotted, f"The kit in {root}.")
    package.__path__ = [root]
    package.__package__ = dotted
    sys.modules[dotted] = package
    return package


def _identifier(name: str) -> str:
    word = re.sub(r"\W", "_", name)
    good = (word[:1].isalpha() or word[:1] == "_") and word != BUILTIN
    return word if good else f"kit_{word}"


def _entry_root(name: str, value: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec(value)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(
            f"the entry point '{name}' of group alignkit.kits names '{value}', which is"
            " no package folder"
        )
    return Path(next(iter(spec.submodule_search_locations)))


# The built-in kit can always be imported: other kits use its helpers.
_register(BUILTIN, str(builtin().root))
_inherited = mounted()  # by the process that started this one
for _kit in _inherited:
    _register(_kit.name, str(_kit.root))
