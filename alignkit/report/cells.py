"""The texts in a table's cells, and how each format escapes them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from alignkit.errors import printable

if TYPE_CHECKING:
    from alignkit.report.comparison import Comparison, Row
    from alignkit.report.intervals import Interval
    from alignkit.report.results import Result

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def number(value: float | None, sign: bool = False) -> str:
    """Three decimals below 10, one above; `-` for none."""
    if value is None:
        return "-"
    text = f"{value:{'+' if sign else ''}.{3 if abs(value) < 10 else 1}f}"
    return "0.000" if text in ("-0.000", "+0.000") else text


def p_value(value: float | None) -> str:
    """Three decimals, `<0.001` below."""
    if value is None:
        return "-"
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}"


def setting(value: object) -> str:
    """A recipe's value in one line."""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return printable(value)


def settings(row: Row, comparison: Comparison, absent: str = "-") -> list[str]:
    """The row's value of every setting that varies."""
    return [
        setting(row.differs[key]) if key in row.differs else absent
        for key in comparison.columns
    ]


def result_cells(result: Result | None) -> tuple[str, str, str, str, str, str, str]:
    """Value, interval, difference, interval, p, verdict and detectable difference."""
    if result is None:
        return "-", "", "-", "", "-", "collapsed", "-"
    difference, interval = "-", ""
    if result.difference:
        difference = number(result.difference.value, sign=True)
        interval = brackets(result.difference.interval, sign=True)
    return (
        number(result.value),
        brackets(result.interval),
        difference,
        interval,
        p_value(result.p_holm),
        result.verdict,
        number(result.smallest_effect),
    )


def seeds(row: Row) -> str:
    """The number of seeds, and of those that collapsed."""
    text = str(len(row.seeds))
    if row.collapsed:
        text += f" (+{len(row.collapsed)} collapsed)"
    return text


def brackets(interval: Interval | None, sign: bool = False) -> str:
    """The interval, or nothing."""
    if interval is None:
        return ""
    return f"[{number(interval.low, sign)}, {number(interval.high, sign)}]"


def short_metric(metric: str) -> str:
    """What a column is called."""
    return metric.removeprefix("eval/")


def csv_cell(value: object) -> object:
    """Numbers as they are; text that a spreadsheet would compute stands behind an
    apostrophe.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    formula = text.lstrip()[:1] in tuple("=+-@") or text[:1] in tuple("\t\r\n")
    return f"'{text}" if formula and not _NUMBER.fullmatch(text) else text


def latex_escaped(text: str) -> str:
    """Text without a command of its own."""
    special = {character: "\\" + character for character in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "\n": " ",
    }
    return "".join(special.get(character, character) for character in text)
