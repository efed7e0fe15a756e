"""The tables of `align sweep`: what differs, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from alignkit.sweep.check import Checked
    from alignkit.sweep.jobs import Job, Sweep

STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "stalled": "red",
    "collapsed": "yellow",
    "waiting": "dim",
}


def progress(state: Sweep) -> Table:
    """One row per variant, one cell per seed: status, step, the metric so far."""
    from rich import box
    from rich.table import Table

    seeds = list(dict.fromkeys(job.seed for job in state.jobs))
    table = Table(
        "variant",
        *(f"seed {seed}" for seed in seeds),
        box=box.SIMPLE_HEAD,
        caption=state.metric,
    )
    for label in state.variants:
        cells = {
            job.seed: _cell(job, state.metric)
            for job in state.jobs
            if job.variant == label
        }
        table.add_row(label, *(cells[seed] for seed in seeds))
    return table


def _cell(job: Job, metric: str) -> Text:
    from rich.text import Text

    from alignkit.sweep.jobs import rows

    text: str = "reused" if job.reused else job.status
    if job.status in ("running", "done", "collapsed"):
        logged = rows(job)
        values = [v for row in logged if isinstance(v := row.get(metric), int | float)]
        if logged and job.status == "running":
            text = f"step {logged[-1].get('step')}" + (
                f"/{job.steps}" if job.steps else ""
            )
        text += f"  {values[-1]:.3f}" if values else ""
    return Text(text, style=STYLES[job.status])


def differences(checked: Checked) -> Table:
    """What each variant changes, resolved, and where that is stated."""
    from rich import box
    from rich.table import Table

    from alignkit.recipe import ABSENT

    spec = checked.spec
    seeds = list(checked.variants[0].recipes)
    title = (
        f"{spec.name}: {len(checked.variants)} variants x {len(seeds)} seeds, decided"
        f" by {checked.metric}"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for head in ("variant", "setting", "base", "here", "from", "steps"):
        table.add_column(head, overflow="fold")
    for variant in checked.variants:
        shown: list[tuple[Any, ...]] = [
            (
                d.key,
                "-" if d.a is ABSENT else d.a,
                "-" if d.b is ABSENT else d.b,
                d.b_origin or "",
            )
            for d in variant.differences
        ]
        for number, row in enumerate(shown or [("(the base)", "", "", "")]):
            first = number == 0
            steps = "" if variant.steps is None or not first else str(variant.steps)
            table.add_row(
                variant.label if first else "",
                *map(str, row),
                steps,
            )
    return table
