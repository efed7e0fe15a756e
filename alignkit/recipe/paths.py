"""Paths as recipes state them: any text may stand there, so looking must not fail."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Sequence
from pathlib import Path

from alignkit import kits
from alignkit.errors import RecipeError, listing


def shown(file: str) -> str:
    """A path as a user would type it here."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def expanded(path: str) -> Path:
    """The path with `~` as the home folder, where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_file(path: Path) -> bool:
    """Whether a file can be seen there; a path that is too long or forbidden is none."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a folder can be seen there."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def recipe_dirs() -> list[Path]:
    """Where a recipe is looked for that is not here: what comes with alignkit."""
    return [kits.builtin().root / "recipes"]


def locate(name: str, folder: Path, recipe_dirs: Sequence[Path]) -> Path:
    """A recipe file by its path from `folder`, or, where there is none, from a kit's
    recipes.

    Raises:
        RecipeError: naming the nearest file that exists.
    """
    given = expanded(name)
    tried = [folder / given]
    if not given.is_absolute():
        tried += [
            d.parent / given if given.parts[:1] == (d.name,) else d / given
            for d in recipe_dirs
        ]
    for path in tried:
        if is_file(path) or is_folder(path):
            return path.resolve()
    beside = tried[0].parent
    known = {p.stem: p.name for p in beside.glob("*.yaml")} if is_folder(beside) else {}
    dirs = [] if given.is_absolute() else recipe_dirs
    places = {
        p.stem: f"{d.name}/{p.relative_to(d)}" for d in dirs for p in d.rglob("*.yaml")
    } | known
    close = difflib.get_close_matches(given.stem, places, n=1, cutoff=0.6)
    if close:
        hint = f"did you mean '{places[close[0]]}'?"
    else:
        hint = (
            f"known: {listing(sorted(known.values()))}"
            if known
            else f"there are no recipes in {shown(str(beside))}"
        )
    raise RecipeError(f"there is no file {name}; {hint}")
