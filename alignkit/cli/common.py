"""What several commands share: options, loading a recipe with its plugins, printing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

kit_option = click.option("--kit", "kit", multiple=True, metavar="DIR", help="A kit to load plugins from (repeatable).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPE, --with, --set and --kit."""
    for option in (
        kit_option,
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key (repeatable)."),
        click.option("--with", "overlays", multiple=True, metavar="FILE", help="Merge an overlay (repeatable)."),
        click.argument("recipe", metavar="RECIPE"),
    ):
        command = option(command)
    return command


def load_registry(recipes: Sequence[str] = (), kit: Sequence[str] = ()) -> Registry:
    """The plugins of all kits in force; also settles whether the Hub is used, before anything asks it."""
    from alignkit import hub, kits, plugins

    hub.settle()

    return plugins.load(kits.find(recipes, kit))


def load_recipe(
    recipe: str, overlays: Sequence[str] = (), sets: Sequence[str] = (), kit: Sequence[str] = ()
) -> tuple[Recipe, Registry]:
    """The recipe, resolved and checked, with the registry of its plugins."""
    from alignkit import kits
    from alignkit import recipe as recipes
    from alignkit.errors import InputError
    from alignkit.sweep.spec import is_sweep_file

    dirs = [kits.builtin().root / "recipes"]
    if is_sweep_file(locate(recipe, dirs)):
        raise InputError(f"{recipe} is a sweep, not a recipe; to see its variants: align sweep {recipe} --dry-run")
    registry = load_registry([recipe], kit)
    files = [locate(overlay, dirs) for overlay in overlays]
    return recipes.load(locate(recipe, dirs), files, sets, registry, recipe_dirs=dirs), registry


def locate(path: str, recipe_dirs: Sequence[Path]) -> Path:
    """The file as given, or, where `recipes/…` is not here, the one that comes with alignkit."""
    given = Path(path)
    if given.exists():
        return given
    for folder in recipe_dirs:
        inside = folder.parent / given
        if not given.is_absolute() and given.parts[:1] == ("recipes",) and inside.is_file():
            return inside
    return given


def console(as_json: bool = False) -> Console:
    """Rich output; on standard error where standard output carries JSON."""
    from rich.console import Console

    return Console(stderr=as_json)


def print_json(value: Any) -> None:
    """A result for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
