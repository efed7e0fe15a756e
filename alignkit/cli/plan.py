"""`align plan`: the dry run."""

from __future__ import annotations

import click

from alignkit.cli.common import (
    console,
    json_option,
    load_recipe,
    print_json,
    recipe_options,
)
from alignkit.cli.plan_shown import show
from alignkit.terminal import waiting


@click.command()
@recipe_options
@click.option(
    "--origins", is_flag=True, help="Show where each stated setting comes from."
)
@json_option
def plan(
    recipe: str,
    overlays: tuple[str, ...],
    sets: tuple[str, ...],
    kit: tuple[str, ...],
    origins: bool,
    as_json: bool,
) -> int:
    """Show whether RECIPE can start here, what it would do and what it would cost.
    Trains nothing.

    Exit code 2: the recipe cannot work; 3: something it needs is missing on this
    machine.
    """
    from alignkit import plan as planning

    loaded, registry = load_recipe(recipe, overlays, sets, kit)
    with waiting(console(as_json), "planning"):
        plans = planning.plan(loaded, registry, estimates=True)
    if as_json:
        places = {key: str(origin) for key, origin in loaded.origins.items()}
        print_json(
            {
                "recipe": loaded.resolved,
                "origins": places,
                "stages": [p.record() for p in plans],
            }
        )
    else:
        show(loaded, plans, origins, console())
    if any(p.wrong for p in plans):
        return 2
    return 3 if any(p.missing for p in plans) else 0
