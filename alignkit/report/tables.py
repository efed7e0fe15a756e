"""One comparison as a table: terminal, Markdown, CSV, JSON, LaTeX. One row per variant."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit.errors import printable
from alignkit.report import cells
from alignkit.report import markdown as marked
from alignkit.report.cells import latex_escaped
from alignkit.terminal import as_json as json_text

if TYPE_CHECKING:
    from rich.table import Table

    from alignkit.report.comparison import Comparison, Row
    from alignkit.report.results import Result

FOLDED = 4  # more settings than this stand in one column of the terminal's table
FORCED = "NOT COMPARABLE: measured differently"
# of one metric in the CSV
FIELDS = (
    "value",
    "low",
    "high",
    "covers",
    "questions",
    "difference",
    "difference_low",
    "difference_high",
    "difference_covers",
    "bootstrap_low",
    "bootstrap_high",
    "test",
    "p",
    "p_holm",
    "verdict",
    "detectable",
)


def terminal(comparison: Comparison, width: int = 120) -> Table:
    """The table for `rich`; intervals are broken over lines only where the terminal is
    narrow.
    """
    from rich import box
    from rich.table import Table

    wide, folded = width >= 100, len(comparison.columns) > FOLDED
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    if comparison.forced:
        table.title = FORCED
    table.title_style = "bold red"
    columns = ["what differs"]
    if not folded:
        columns = cells.short_keys(comparison.columns)
    for column in ["variant", *columns]:
        table.add_column(column, overflow="fold")
    table.add_column("seeds", justify="right")
    for metric in comparison.metrics:
        name = cells.short_metric(metric)
        table.add_column(name, justify="right", no_wrap=wide)
        table.add_column("difference", justify="right", no_wrap=wide)
        table.add_column("p", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=wide)
    for row in comparison.rows:
        texts = _terminal_row(row, comparison, folded)
        table.add_row(*texts, style="bold" if row.base else None)
    return table


def _terminal_row(row: Row, comparison: Comparison, folded: bool) -> Iterator[str]:
    yield printable(row.label) + ("\n(base)" if row.base else "")
    if folded:
        settings = row.differs.items()
        yield "\n".join(f"{key}: {cells.setting(value)}" for key, value in settings)
    else:
        yield from cells.settings(row, comparison)
    yield cells.seeds(row)
    for metric in comparison.metrics:
        value, interval, difference, around, p, verdict, smallest = cells.result_cells(
            row.results.get(metric)
        )
        yield f"{value}\n{interval}".rstrip("\n")
        yield f"{difference}\n{around}".rstrip("\n")
        yield p
        yield verdict + (f"\n(detects {smallest})" if smallest != "-" else "")


def markdown(comparison: Comparison) -> str:
    """A GitHub table with the notes below."""
    head, *rows = _flat(comparison)
    notes = [f"- {marked.escaped(note)}" for note in _all_notes(comparison)]
    mark = [f"**{FORCED}**", ""] if comparison.forced else []
    return "\n".join([*mark, *marked.table(head, rows), "", *notes, ""])


def latex(comparison: Comparison) -> str:
    """A booktabs table; the notes are comments."""
    head, *rows = (
        " & ".join(map(latex_escaped, row)) + r" \\" for row in _flat(comparison)
    )
    width = len(next(_flat(comparison)))
    comments = ["needs \\usepackage{booktabs}", *_all_notes(comparison)]
    lines = ["% " + " ".join(comment.split()) for comment in comments]
    if comparison.forced:
        lines.append(r"\textbf{" + FORCED + r"}\\")
    lines += [r"\begin{tabular}{" + "l" * width + "}", r"\toprule", head, r"\midrule"]
    lines += [*rows, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def as_csv(comparison: Comparison) -> str:
    """Full precision, one column per number; `measured_differently` says what was
    forced.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = [f"{metric}:{name}" for metric in comparison.metrics for name in FIELDS]
    head = ["variant", "base", "seeds", *comparison.columns, *fields]
    writer.writerow(map(cells.csv_cell, [*head, "measured_differently"]))
    forced = "; ".join(comparison.forced)
    for row in comparison.rows:
        texts: list[object] = [row.label, int(row.base), " ".join(map(str, row.seeds))]
        texts += cells.settings(row, comparison, absent="")
        for metric in comparison.metrics:
            texts += _numbers(row.results.get(metric))
        writer.writerow(map(cells.csv_cell, [*texts, forced]))
    return text.getvalue()


def _numbers(result: Result | None) -> list[object]:
    """One cell for each of FIELDS; None is written as an empty one."""
    fields: dict[str, object] = dict.fromkeys(FIELDS)
    if result is None:
        fields["verdict"] = "collapsed"
        return list(fields.values())
    fields |= {"value": result.value, "questions": result.questions}
    if result.interval:
        low, high = result.interval.low, result.interval.high
        fields |= {"low": low, "high": high, "covers": result.interval.covers}
    if result.difference is None:
        return list(fields.values())
    difference = result.difference
    fields |= {
        "difference": difference.value,
        "difference_covers": difference.covers,
        "test": difference.test,
        "p": difference.p,
        "p_holm": result.p_holm,
        "verdict": result.verdict,
        "detectable": result.smallest_effect,
    }
    intervals = {"difference": difference.interval, "bootstrap": difference.bootstrap}
    for name, interval in intervals.items():
        if interval:
            fields |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return list(fields.values())


def as_json(comparison: Comparison) -> str:
    """Everything, with both the tests over questions and over seeds."""
    return json_text(comparison.as_dict()) + "\n"


def notes(comparison: Comparison) -> list[str]:
    """What the reader must know: what was forced, what was left out, what the numbers
    mean.
    """
    forced = [f"FORCED: {text}" for text in comparison.forced]
    left_out = [f"Left out: {text}" for text in comparison.left_out]
    return list(map(printable, [*forced, *left_out, *comparison.notes]))


def _all_notes(comparison: Comparison) -> list[str]:
    return [f"Base: {printable(comparison.base)}.", *notes(comparison)]


def _flat(comparison: Comparison) -> Iterator[list[str]]:
    """Header and rows as text, one line per cell."""
    head = ["variant", *map(printable, comparison.columns), "seeds"]
    for metric in comparison.metrics:
        head.append(cells.short_metric(metric))
        head += ["difference", "p (Holm)", "verdict", "detectable"]
    yield head
    for row in comparison.rows:
        yield _flat_row(row, comparison)


def _flat_row(row: Row, comparison: Comparison) -> list[str]:
    label = printable(row.label) + (" (base)" if row.base else "")
    texts = [label, *cells.settings(row, comparison), cells.seeds(row)]
    for metric in comparison.metrics:
        value, interval, difference, around, p, verdict, smallest = cells.result_cells(
            row.results.get(metric)
        )
        texts += [f"{value} {interval}".strip(), f"{difference} {around}".strip()]
        texts += [p, verdict or "-", smallest]
    return texts
