"""`align grade --label`: a person says which responses are right."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.cli.common import console
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.grading.bound import BoundReward
    from alignkit.grading.stored import Fields, GradedRow

KEYS = {"r": "right", "w": "wrong", "u": "unsure"}
ASKED = "r right, w wrong, u unsure, m the whole response, b back, q quit"
SHARES = ("precision", "recall", "accuracy")
ENDING = 1200  # characters of a response, and of a prompt, that are shown at first


def label(file: Path, drawn: Sequence[Mapping[str, Any]], told: Console) -> None:
    """Take up the sheet in `file`, ask for the labels it lacks, and keep each at once.

    Where no person sits at a terminal the sheet is written, to be filled in by hand.
    """
    from alignkit.graders import labels
    from alignkit.run import lock, write_rows

    sheet = [dict(row) for row in drawn]
    with lock(file):
        if file.is_file():
            sheet = labels.taken_up(file, drawn)
        write_rows(file, sheet)
        if sys.stdin.isatty() and sys.stdout.isatty():
            _ask(file, sheet)
        elif left := sum(row["label"] is None for row in sheet):
            say(
                told,
                f'{left} rows of {file} have no label: write "right", "wrong" or'
                ' "unsure" as each `label`, and say the same command again',
            )


def _ask(file: Path, sheet: list[dict[str, Any]]) -> None:
    """Row after row, blind to what the graders say."""
    from alignkit.run import now, write_rows

    screen = console()
    at, whole = _next(sheet, 0), False
    with _keyboard(), contextlib.suppress(KeyboardInterrupt):
        while at < len(sheet):
            _show(screen, sheet, at, whole)
            key = os.read(sys.stdin.fileno(), 1).decode(errors="replace").lower()
            whole = key == "m"
            if key in ("q", ""):
                break
            if key == "b":
                at = max(at - 1, 0)
            elif key in KEYS:
                sheet[at] |= {"label": KEYS[key], "time": now()}
                write_rows(file, sheet)
                at = _next(sheet, at + 1)
    left = sum(row["label"] is None for row in sheet)
    say(screen, f"{len(sheet) - left} of {len(sheet)} rows have a label: {file}")


@contextlib.contextmanager
def _keyboard() -> Iterator[None]:
    """Keys come one by one; those pressed ahead are not lost."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _next(sheet: Sequence[Mapping[str, Any]], at: int) -> int:
    """The next row without a label; behind the last one where there is none."""
    while at < len(sheet) and sheet[at]["label"] is not None:
        at += 1
    return at


def _show(
    screen: Console, sheet: Sequence[Mapping[str, Any]], at: int, whole: bool
) -> None:
    row = sheet[at]
    screen.rule(f"{at + 1} of {len(sheet)}: {row['place']}")
    for name in ("prompt", "response"):
        text = str(row[name])
        cut = not whole and len(text) > ENDING
        say(screen, f"{name}, its end" if cut else name, "bold")
        say(screen, text[-ENDING:] if cut else text)
    say(screen, f"truth: {row['truth']}", "bold")
    said = f", now {row['label']}" if row["label"] else ""
    say(screen, f"{ASKED}{said}", "dim")


def labelled(
    place: Path,
    graded: Sequence[GradedRow],
    rewards: Mapping[str, BoundReward],
    fields: Fields,
    where: Callable[[GradedRow], str],
    size: int | None,
    as_json: bool,
) -> dict[str, Any]:
    """Have `size` of the graded rows labelled, and say how wrong each reward is by the
    labels that are there; nothing where none was asked for.

    Args:
        place: the run, or the file of rows. where: what names a row.
    """
    from alignkit.graders import labels

    if size is None:
        return {}
    file = labels.sheet_of(place)
    drawn = labels.draw(graded, list(rewards), size, fields, where)
    label(file, drawn, console(as_json))
    sheet = labels.read(file)
    count = labels.labelled(sheet)
    errors = {r: asdict(labels.errors(sheet, r)) for r in rewards} if count else {}
    return {"labels": {"file": str(file), "n": count, "rewards": errors}}


def show_errors(summary: Mapping[str, Any], screen: Console) -> None:
    """What the labels say of the graders, as a table."""
    from rich.table import Table

    by = summary.get("labels")
    if not by or not by["n"]:
        return
    table = Table("reward", *SHARES, box=None, pad_edge=False)
    for reward, errors in by["rewards"].items():
        table.add_row(reward, *(_share(errors[name]) for name in SHARES))
    screen.print(table)
    say(
        screen,
        f"by {by['n']} labels in {by['file']}, each stratum weighted by its rows; 95 %"
        " intervals",
    )


def _share(share: Mapping[str, float | None]) -> str:
    if share["low"] is None:
        return "-"
    value = "-" if share["value"] is None else f"{share['value']:.3f}"
    return f"{value} [{share['low']:.3f}, {share['high']:.3f}]"
