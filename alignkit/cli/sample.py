"""The sampling part of an expert iteration, in a process of its own; `align run` calls
it.
"""

from __future__ import annotations

import click

from alignkit.cli.common import console, kit_option, load_recipe


@click.command(hidden=True)
@click.argument("run")
@click.option("--iteration", type=int, required=True)
@click.option("--model", required=True)
@kit_option
def sample(run: str, iteration: int, model: str, kit: tuple[str, ...]) -> None:
    """Sample and grade the rollouts of one iteration of RUN."""
    from alignkit.run import Run
    from alignkit.train.children import end_with_parent
    from alignkit.train.sampling import sample_logged

    end_with_parent()
    begun = Run.open(run)
    recipe, registry = load_recipe(
        str(begun.folder / "recipe.yaml"), kit=kit, told=False
    )
    sample_logged(recipe, registry, begun, iteration, model, console())
