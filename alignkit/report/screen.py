"""A comparison on a terminal of any width: what differs is said once, and a number
stands on one line with its interval, or above it whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from alignkit.errors import printable
from alignkit.report import cells

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from alignkit.report.comparison import Comparison, Row

FORCED = "NOT COMPARABLE: measured differently"
LONG = 18  # columns of a variant's name beyond which it is called by a letter
GAP = 2  # columns between two of a table
HEADS = ("variant", "seeds", "value", "difference", "p", "verdict")


def shown(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """What differs between which variants, then a table for each metric; where even
    that is too wide, a few lines for each variant.
    """
    names = _names(comparison.rows)
    if comparison.forced:
        yield _text(FORCED, "bold red")
    yield from _legend(comparison, names, width)
    for metric in comparison.metrics:
        yield _text("")
        yield _text(cells.short_metric(metric), "bold")
        each = [_cells(row, metric, names) for row in comparison.rows]
        for joint in (" ", "\n"):
            rows = [_joined(row, joint) for row in each]
            if _width(rows) <= width:
                yield _table(rows, comparison.rows)
                break
        else:
            yield from map(_text, _lines(each))


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """What each variant is called: by its own name where all are short."""
    labels = [row.label for row in rows]
    if max(map(len, map(printable, labels))) <= LONG:
        return {label: printable(label) for label in labels}
    return {label: _letter(place) for place, label in enumerate(labels)}


def _letter(place: int) -> str:
    lap, turn = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[turn] + (str(lap + 1) if lap else "")


def _legend(
    comparison: Comparison, names: Mapping[str, str], width: int
) -> Iterator[RenderableType]:
    """The full names, and a grid of the settings that differ: each key once."""
    for label, name in names.items():
        if name != printable(label):
            yield _text(f"{name}  {printable(label)}")
    if not comparison.columns:
        return
    grid = [["what differs", *names.values()]]
    by_row = [cells.settings(row, comparison) for row in comparison.rows]
    for place, key in enumerate(comparison.columns):
        grid.append([f"  {printable(key)}", *(values[place] for values in by_row)])
    sizes = [max(map(len, column)) for column in zip(*grid, strict=True)]
    if sum(sizes) + GAP * (len(sizes) - 1) <= width:
        for place, line in enumerate(grid):
            padded = (f"{cell:{size}}" for cell, size in zip(line, sizes, strict=True))
            yield _text((" " * GAP).join(padded).rstrip(), "" if place else "bold")
        return
    for row, values in zip(comparison.rows, by_row, strict=True):
        yield _text(names[row.label], "bold")
        longest = max(map(len, comparison.columns))
        for key, value in zip(comparison.columns, values, strict=True):
            yield _text(f"  {printable(key):{longest}}  {value}")


def _cells(row: Row, metric: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Under each of `HEADS` what stands there, and what belongs to it."""
    value, interval, difference, around, p, verdict, smallest = cells.result_cells(
        row.results.get(metric)
    )
    detects = "" if smallest == "-" else f"(detects {smallest})"
    return [
        (names[row.label], "(base)" if row.base else ""),
        (cells.seeds(row), ""),
        (value, interval),
        (difference, around),
        (p, ""),
        (verdict, detects),
    ]


def _joined(row: Sequence[tuple[str, str]], joint: str) -> list[str]:
    return [joint.join(part for part in cell if part) for cell in row]


def _width(rows: Sequence[Sequence[str]]) -> int:
    columns = zip(HEADS, *rows, strict=True)
    longest = [max(len(x) for cell in c for x in cell.split("\n")) for c in columns]
    return sum(longest) + GAP * (len(longest) - 1)


def _table(texts: Sequence[Sequence[str]], rows: Sequence[Row]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for head in HEADS:
        right = "right" if head in ("seeds", "p") else "left"
        table.add_column(head, justify=right, no_wrap=True)  # type: ignore[arg-type]
    for cell_texts, row in zip(texts, rows, strict=True):
        table.add_row(*cell_texts, style="bold" if row.base else None)
    return table


def _lines(rows: Sequence[Sequence[tuple[str, str]]]) -> Iterator[str]:
    for row in rows:
        name, seeds, value, difference, p, verdict = _joined(row, " ")
        yield f"{name}: {value}, seeds {seeds}"
        if difference != "-":
            yield f"  difference {difference}"
            yield f"  p {p}, {verdict}"


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
