"""One comparison as a table: terminal, Markdown, CSV, JSON, LaTeX. One row per variant."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignkit.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from alignkit.report.comparison import Comparison, Result, Row
    from alignkit.report.stats import Interval

FOLDED = 4  # more settings than this stand in one column of the terminal's table
FORCED = "NOT COMPARABLE: measured differently"


def number(value: float | None, sign: bool = False) -> str:
    """Three decimals below 10, one above; `-` for none."""
    if value is None:
        return "-"
    text = f"{value:{'+' if sign else ''}.{3 if abs(value) < 10 else 1}f}"
    return "0.000" if text in ("-0.000", "+0.000") else text


def p_value(value: float | None) -> str:
    """Three decimals, `<0.001` below."""
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def setting(value: Any) -> str:
    """A recipe's value in one line."""
    return printable(
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
    )


def terminal(found: Comparison, width: int = 120) -> Table:
    """The table for `rich`; intervals are broken over lines only where the terminal is
    narrow.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        title=FORCED if found.forced else None,
    )
    table.title_style = "bold red"
    folded = len(found.columns) > FOLDED
    table.add_column("variant", overflow="fold")
    for column in ["what differs"] if folded else _short_keys(found.columns):
        table.add_column(escape(column), overflow="fold")
    table.add_column("seeds", justify="right")
    for metric in found.metrics:
        table.add_column(escape(_short(metric)), justify="right", no_wrap=width >= 100)
        table.add_column("difference", justify="right", no_wrap=width >= 100)
        table.add_column("p", justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=width >= 100)
    for row in found.rows:
        settings = [
            setting(row.differs[key]) if key in row.differs else "-"
            for key in found.columns
        ]
        if folded:
            settings = [
                "\n".join(
                    f"{key}: {setting(value)}" for key, value in row.differs.items()
                )
            ]
        cells = [
            printable(row.label) + ("\n(base)" if row.base else ""),
            *settings,
            _seeds(row),
        ]
        for metric in found.metrics:
            value, interval, difference, around, p, verdict, smallest = _cells(
                row.results.get(metric)
            )
            detectable = f"\n(detects {smallest})" if smallest != "-" else ""
            cells += [
                _two_lines(value, interval),
                _two_lines(difference, around),
                p,
                verdict + detectable,
            ]
        table.add_row(*map(escape, cells), style="bold" if row.base else None)
    return table


def markdown(found: Comparison) -> str:
    """A GitHub table with the notes below."""
    head, rows = _flat(found)
    lines = ["| " + " | ".join(map(_md, row)) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + " --- |" * len(head))
    mark = [f"**{FORCED}**", ""] if found.forced else []
    return (
        "\n".join(
            [*mark, *lines, "", *(f"- {_md(note)}" for note in _all_notes(found))]
        )
        + "\n"
    )


def latex(found: Comparison) -> str:
    """A booktabs table; the notes are comments."""
    head, rows = _flat(found)
    lines = [r"\begin{tabular}{" + "l" * len(head) + "}", r"\toprule"]
    lines += [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    mark = [r"\textbf{" + FORCED + r"}\\"] if found.forced else []
    comments = [
        "% " + " ".join(note.split())
        for note in ["needs \\usepackage{booktabs}", *_all_notes(found)]
    ]
    return "\n".join([*comments, *mark, *lines]) + "\n"


def as_csv(found: Comparison) -> str:
    """Full precision, one column per number; `measured_differently` says what was
    forced.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["variant", "base", "seeds", *found.columns]
    fields = [
        "value",
        "low",
        "high",
        "covers",
        "questions",
        "difference",
        "difference_low",
        "difference_high",
    ]
    fields += [
        "difference_covers",
        "bootstrap_low",
        "bootstrap_high",
        "test",
        "p",
        "p_holm",
        "verdict",
        "detectable",
    ]
    head += [f"{metric}:{name}" for metric in found.metrics for name in fields]
    writer.writerow([*head, "measured_differently"])
    for row in found.rows:
        settings = [
            setting(row.differs[key]) if key in row.differs else ""
            for key in found.columns
        ]
        cells: list[Any] = [
            row.label,
            int(row.base),
            " ".join(map(str, row.seeds)),
            *settings,
        ]
        for metric in found.metrics:
            result = row.results.get(metric)
            if result is None:
                cells += [None] * (len(fields) - 2) + ["collapsed", None]
                continue
            d = result.difference
            cells += [
                result.value,
                *_bounds(result.interval),
                result.interval and result.interval.covers,
            ]
            cells.append(result.questions)
            if d is None:
                cells += [None] * (len(fields) - 5)
                continue
            cells += [d.value, *_bounds(d.interval), d.covers, *_bounds(d.bootstrap)]
            cells += [
                d.test,
                d.p,
                result.p_holm,
                result.verdict,
                result.smallest_effect,
            ]
        writer.writerow(
            ["" if cell is None else cell for cell in [*cells, "; ".join(found.forced)]]
        )
    return text.getvalue()


def as_json(found: Comparison) -> str:
    """Everything, with both the tests over questions and over seeds."""
    return json.dumps(found.as_dict(), indent=2, ensure_ascii=False, default=str) + "\n"


def notes(found: Comparison) -> list[str]:
    """What the reader must know: what was forced, what was left out, what the numbers
    mean.
    """
    forced = [f"FORCED: {text}" for text in found.forced]
    return list(
        map(
            printable,
            [*forced, *(f"Left out: {text}" for text in found.left_out), *found.notes],
        )
    )


def _all_notes(found: Comparison) -> list[str]:
    return [f"Base: {printable(found.base)}.", *notes(found)]


def _flat(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text, one line per cell."""
    head = ["variant", *map(printable, found.columns), "seeds"]
    for metric in found.metrics:
        head += [_short(metric), "difference", "p (Holm)", "verdict", "detectable"]
    return head, [_flat_row(row, found) for row in found.rows]


def _flat_row(row: Row, found: Comparison) -> list[str]:
    settings = [
        setting(row.differs[key]) if key in row.differs else "-"
        for key in found.columns
    ]
    cells = [
        printable(row.label) + (" (base)" if row.base else ""),
        *settings,
        _seeds(row),
    ]
    for metric in found.metrics:
        value, interval, difference, around, p, verdict, smallest = _cells(
            row.results.get(metric)
        )
        cells += [
            f"{value} {interval}".strip(),
            f"{difference} {around}".strip(),
            p,
            verdict or "-",
            smallest,
        ]
    return cells


def _cells(result: Result | None) -> tuple[str, str, str, str, str, str, str]:
    if result is None:
        return "-", "", "-", "", "-", "collapsed", "-"
    d = result.difference
    return (
        number(result.value),
        _brackets(result.interval),
        number(d.value, sign=True) if d else "-",
        _brackets(d.interval, sign=True) if d else "",
        p_value(result.p_holm),
        result.verdict,
        number(result.smallest_effect),
    )


def _seeds(row: Row) -> str:
    return str(len(row.seeds)) + (
        f" (+{len(row.collapsed)} collapsed)" if row.collapsed else ""
    )


def _brackets(interval: Interval | None, sign: bool = False) -> str:
    return (
        f"[{number(interval.low, sign)}, {number(interval.high, sign)}]"
        if interval
        else ""
    )


def _two_lines(value: str, interval: str) -> str:
    return f"{value}\n{interval}" if interval else value


def _bounds(interval: Interval | None) -> Sequence[float | None]:
    return (interval.low, interval.high) if interval else (None, None)


def _short_keys(keys: Sequence[str]) -> list[str]:
    """The last words of dotted keys, as many as tell them apart."""
    for words in range(1, 1 + max((key.count(".") + 1 for key in keys), default=0)):
        short = [".".join(key.split(".")[-words:]) for key in keys]
        if len(set(short)) == len(keys):
            return short
    return list(keys)


def _short(metric: str) -> str:
    return metric.removeprefix("eval/")


def _md(text: str) -> str:
    """Text that makes no cell, tag or link of its own."""
    return re.sub(r"([|\\]|<(?=[a-zA-Z/!])|(?<=\])\()", r"\\\1", text).replace(
        "\n", " "
    )


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
    }
    special |= {character: "\\" + character for character in "&%$#_{}"} | {
        ">": r"$>$",
        "\n": " ",
    }
    return "".join(special.get(character, character) for character in text)
