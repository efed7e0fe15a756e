"""What a tracker gets at a run's end beside numbers: the rollouts of the last step, and
what the checks found.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignkit import checks, records
from alignkit.errors import AlignError, printable
from alignkit.records import browse

log = logging.getLogger(__name__)

ROWS = 64
LONGEST = 2000  # characters of a text
ROLLOUT = (
    "step",
    "group",
    "sample",
    "prompt",
    "response",
    "truth",
    "reward",
    "advantage",
    "status",
)
FINDING = ("level", "check", "title", "evidence", "cure")
Table = tuple[Sequence[str], list[list[Any]]]  # columns, rows


def tables_of(folder: Path) -> dict[str, Table]:
    """The tables of a run's folder by name; those without rows are left out.

    A folder that cannot be read is a warning and no tables: no tracker is at fault.
    """
    try:
        return _tables(folder)
    except (AlignError, ValueError) as error:
        log.warning("no tables for the trackers: %s", error)
        return {}


def _tables(folder: Path) -> dict[str, Table]:
    [*_, record] = records.read(folder)
    rollouts: list[list[Any]] = []
    if steps := browse.steps(record):
        for row in browse.rows(record, steps[-1]):
            if len(rollouts) < ROWS:
                rollouts.append([_cell(row[name]) for name in ROLLOUT])  # type: ignore[literal-required]
    found = checks.examine(record).findings
    findings = [[_cell(vars(f)[name]) for name in FINDING] for f in found]
    tables = {"rollouts": (ROLLOUT, rollouts), "findings": (FINDING, findings)}
    return {name: table for name, table in tables.items() if table[1]}


def send(tracker: str, tables: dict[str, Table]) -> None:
    """Log them to the tracker's run that is open; trackers without tables get none."""
    if tracker == "wandb":
        import wandb

        if wandb.run is not None:
            wandb.log(
                {
                    name: wandb.Table(columns=list(columns), data=rows)
                    for name, (columns, rows) in tables.items()
                }
            )
    elif tracker == "trackio":
        import pandas
        import trackio

        for name, (columns, rows) in tables.items():
            frame = pandas.DataFrame(rows, columns=list(columns))
            trackio.log({name: trackio.Table(dataframe=frame)})


def _cell(value: Any) -> Any:
    """A number as it is, anything else as text in which nothing acts."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
