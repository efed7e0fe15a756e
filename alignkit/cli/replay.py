"""`align replay`: compute a step of a run again, as an audit that others can run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from alignkit.cli.common import (
    allow_option,
    console,
    json_option,
    kit_option,
    load_recipe,
    print_json,
)
from alignkit.terminal import say

SHOWN = 20  # differences that are listed


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=int, help="The optimizer step; by default the last one.")
@kit_option
@allow_option
@json_option
def replay(run: Path, step: int | None, kit: tuple[str, ...], as_json: bool) -> int:
    """Compute a step of RUN again, from the checkpoint before it, and compare what was
    logged: loss, gradient norm, rollouts, rewards, advantages, and the weights where a
    checkpoint follows. Nothing is written into RUN.

    Exit code 1 when something differs.
    """
    from alignkit import provenance
    from alignkit.data.datasets import Datasets
    from alignkit.run import Run
    from alignkit.train.replay import replay as again

    begun = Run.open(run)
    loaded, registry = load_recipe(str(run / "recipe.yaml"), (), (), kit)
    out = console(as_json)
    changed = []
    if not provenance.is_old(begun.manifest):
        now = provenance.of_run(loaded, registry, Datasets(registry))
        changed = list(provenance.changes(begun.manifest, now))
    for text in changed:
        say(out, f"not as it was: {text}")
    account = again(loaded, registry, begun, step, out)
    differences = account.differences or []
    if as_json:
        gaps = [{**asdict(gap), "relative": gap.relative} for gap in differences]
        told = {**asdict(account), "equal": account.equal, "changed": changed}
        print_json({**told, "differences": gaps})
        return 0 if account.equal else 1
    first, last = account.steps[0], account.steps[-1]
    steps = f"step {last}" if first == last else f"steps {first} to {last}"
    counts = [f"{account.numbers} numbers"]
    counts += [f"{account.rollouts} rollouts"] if account.rollouts else []
    counts += [f"{account.weights} tensors"] if account.weights else []
    if account.equal:
        say(out, f"{steps}: {', '.join(counts)}, all equal to the bit")
        return 0
    say(out, f"{steps}: {len(differences)} differences in {', '.join(counts)}")
    for gap in differences[:SHOWN]:
        share = "" if gap.relative is None else f"  ({gap.relative:.2g} of it)"
        say(
            out,
            f"  {gap.place}: {gap.quantity}: logged {gap.logged!r:.80}, replayed"
            f" {gap.replayed!r:.80}{share}",
        )
    if len(differences) > SHOWN:
        say(out, f"  and {len(differences) - SHOWN} more")
    if changed:
        say(out, "other data, plugins, versions or kernels may explain them")
    return 1
