"""Kits: folders with any of recipes/, rewards/, evals/, plugins/, importable as
`alignkit.kits.<name>`.

A mounted kit is a synthetic package whose `__path__` is the kit's folder, so plugin
files are imported by the ordinary import system and their functions pickle. Mounts are
repeated in child processes from `ALIGN_MOUNTS`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alignkit.errors import PluginError

PLUGIN_FOLDERS = ("rewards", "evals", "plugins")
FOLDERS = ("recipes", *PLUGIN_FOLDERS)
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
    return Kit(
        "builtin", package / "kit" if (package / "kit").is_dir() else package.parent
    )


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
    return Kit(_identifier(root.name), root)


def of_recipe(recipe: Path) -> list[Kit]:
    """The kit a recipe file lies in (the parent of its `recipes/` folder), or the kits
    its run was started with.

    A path where there is no file lies in no kit, whatever its folders are called.
    """
    path = recipe.resolve()
    if not path.is_file():
        return []
    for folder in path.parents:
        recorded = _recorded(folder)
        if recorded is not None:
            return recorded
        if folder.name == "recipes":
            return [Kit(_identifier(folder.parent.name), folder.parent)]
    return []


def find(recipes: Iterable[Path] = (), folders: Sequence[Path | str] = ()) -> list[Kit]:
    """All kits in force: the built-in one, installed packages', `ALIGN_KITS`, `--kit`
    folders, the recipes' own.

    `recipes` are the files that are read, not paths as they were typed: a built-in
    recipe brings no folder of the user's. The bare current directory is never among the
    kits: running a stranger's code must be asked for.
    """
    from importlib.metadata import entry_points

    kits = [builtin()]
    for point in entry_points(group="alignkit.kits"):
        kits.append(Kit(_identifier(point.name), _entry_root(point.name, point.value)))
    for folder in filter(None, os.environ.get("ALIGN_KITS", "").split(os.pathsep)):
        kits.append(at(folder, "ALIGN_KITS"))
    kits += [at(folder, "--kit") for folder in folders]
    for recipe in recipes:
        kits += of_recipe(recipe)
    unique: dict[Path, Kit] = {}
    for kit in kits:
        unique.setdefault(kit.root.resolve(), kit)
    by_name: dict[str, Kit] = {}
    for kit in unique.values():
        if kit.name in by_name:
            both = f"{by_name[kit.name].root} and {kit.root}"
            raise PluginError(
                f"two kits are named '{kit.name}': {both}; rename a folder"
            )
        by_name[kit.name] = kit
    return list(unique.values())


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


def _recorded(folder: Path) -> list[Kit] | None:
    """The kits that a run folder records, None where it is no run folder.

    What is no kit any more is passed over: a recipe that needs it says so, any other
    can still be resumed.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file() or not (folder / "recipe.yaml").is_file():
        return None
    try:
        roots = dict(json.loads(manifest.read_text(encoding="utf-8"))["kits"])
    except (ValueError, LookupError, TypeError):
        return None
    roots.pop("builtin", None)
    return [at(root, str(manifest)) for root in roots.values() if _is_kit(Path(root))]


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
    return word if word[:1].isalpha() or word[:1] == "_" else f"kit_{word}"


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
_register("builtin", str(builtin().root))
for _name, _root in json.loads(os.environ.get(_MOUNTS, "{}")).items():
    _register(_name, _root)
