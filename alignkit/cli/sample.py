"""The sampling part of an expert iteration, in a process of its own; `align run` calls
it.
"""

from __future__ import annotations

import logging
from pathlib import Path

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
    from alignkit.train.pipeline import end_with_parent
    from alignkit.train.sampling import sample as sample_iteration

    end_with_parent()
    Run.open(run).log_to_file()
    recipe, registry = load_recipe(str(Path(run) / "recipe.yaml"), kit=kit)
    home = Path(run) / "iterations" / f"{iteration:03d}"
    try:
        sample_iteration(recipe, registry, home, iteration, model, console())
    except Exception:
        logging.getLogger("alignkit").exception(
            "the sampling of iteration %d failed", iteration
        )
        raise
