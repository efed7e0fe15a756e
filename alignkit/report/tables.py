"""One comparison as a table: Markdown, CSV, JSON, LaTeX. One row per variant."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alignkit.errors import printable
from alignkit.report import cells
from alignkit.report import markdown as marked
from alignkit.report.cells import latex_escaped
from alignkit.report.screen import FORCED
from alignkit.terminal import as_json as json_text

if TYPE_CHECKING:
    from alignkit.report.comparison import Comparison, Row
    from alignkit.report.results import Result

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
