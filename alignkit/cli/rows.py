"""Groups, responses and compared evals, as a terminal or a program reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alignkit.cli.common import print_json
from alignkit.errors import InputError
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.records.browse import Group
    from alignkit.report.versus import Versus
    from alignkit.run.rows import Row

WIDTH = 60  # characters of a text in a table


def table(
    out: Console, names: Sequence[str], lines: Sequence[Sequence[object]]
) -> None:
    """Print a table of texts from outside."""
    from rich.table import Table

    drawn = Table(*names, box=None, pad_edge=False)
    for line in lines:
        drawn.add_row(*map(str, line))
    out.print(drawn)


def _short(text: object, width: int = WIDTH) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def number(value: object) -> str:
    """Three digits; a dash for none."""
    return f"{value:.3g}" if isinstance(value, int | float) else "-"


def print_step(groups: Sequence[Group], out: Console, as_json: bool) -> None:
    """One line a group."""
    if as_json:
        print_json([_plain(group) for group in groups])
        return
    lines = [
        (
            group.number,
            f"{group.right}/{len(group.rows)}",
            " ".join(number(row["reward"]) for row in group.rows),
            sum(row["finish_reason"] == "length" for row in group.rows),
            _short(group.rows[0]["truth"], 20),
            _short(group.question),
        )
        for group in groups
    ]
    table(out, ("group", "right", "rewards", "cut", "truth", "question"), lines)


def print_group(
    groups: Sequence[Group], chosen: int, out: Console, as_json: bool
) -> None:
    """Every response of one group.

    Raises:
        InputError: the step has no such group.
    """
    one = next((group for group in groups if group.number == chosen), None)
    if one is None:
        last = groups[-1].number
        raise InputError(f"step {groups[0].step} has no group {chosen}: 0 to {last}")
    if as_json:
        print_json(_plain(one))
        return
    say(
        out,
        f"step {one.step}, group {one.number}: {one.right} of {len(one.rows)} right",
    )
    say(out, f"prompt: {one.rows[0]['prompt']}")
    say(out, f"truth: {one.rows[0]['truth']}")
    for row in one.rows:
        _print_row(row, out)


def _print_row(row: Row, out: Console) -> None:
    out.rule(_place(row))
    facts = {
        "reward": number(row["reward"]),
        "advantage": number(row["advantage"]),
        "status": row["status"],
        "tokens": row["tokens"],
        "ended by": row["finish_reason"],
    }
    say(out, "  ".join(f"{key} {value}" for key, value in facts.items()), "bold")
    told = ": ".join(filter(None, (row["stage"], row["explanation"])))
    if told:
        say(out, f"graded: {told}", "dim")
    say(out, str(row["response"]))


def _place(row: Row) -> str:
    if row["id"] is not None:
        return f"{row['id']} (sample {row['sample']})"
    return f"step {row['step']}, group {row['group']}, sample {row['sample']}"


def print_question(
    groups: Sequence[Group], text: str, out: Console, as_json: bool
) -> None:
    from alignkit.records import browse

    if not groups:
        raise InputError(f"no rollout asks {text!r}")
    if as_json:
        print_json([_plain(group) for group in groups])
        return
    lines = [
        (
            group.step,
            group.number,
            f"{group.right}/{len(group.rows)}",
            ", ".join(f"{_short(a, 20)} ({n})" for a, n in browse.answers(group)),
            _short(group.question),
        )
        for group in groups
    ]
    table(out, ("step", "group", "right", "commonest answers", "question"), lines)


def print_rows(rows: Any, chosen: Any, limit: int, out: Console, as_json: bool) -> None:
    matches = [row for row in rows if chosen.takes(row)]
    if as_json:
        print_json(matches[:limit])
        return
    for row in matches[:limit]:
        _print_row(row, out)
        say(out, f"truth: {row['truth']}")
    say(out, f"{min(limit, len(matches))} of {len(matches)} rows (--limit)", "bold")


def _counts(compared: Versus) -> dict[str, int]:
    return {
        "fixed": len(compared.fixed),
        "broken": len(compared.broken),
        "still wrong": len(compared.still_wrong),
        "right in both": len(compared.still_right),
        "in one only": compared.alone,
    }


def _plain(group: Group) -> Mapping[str, Any]:
    return {"step": group.step, "group": group.number, "rows": list(group.rows)}


def print_versus(compared: Versus, limit: int, out: Console, as_json: bool) -> None:
    """Counts, the paired difference, and the first questions that changed."""
    from alignkit.records import browse

    if as_json:
        print_json(_counts(compared) | {"difference": asdict(compared.difference)})
        return
    counts = _counts(compared)
    table(out, list(counts), [list(counts.values())])
    interval = compared.difference.interval or compared.difference.bootstrap
    within = f", 95 % {interval.low:+.3f} to {interval.high:+.3f}" if interval else ""
    say(out, f"difference {compared.difference.value:+.3f}{within} (paired)", "bold")
    sides = {"fixed": compared.fixed, "broken": compared.broken}
    for side, pairs in sides.items():
        for before, after in pairs[:limit]:
            out.rule(f"{side}: {_short(browse.question_of(after))}")
            say(out, f"truth: {after['truth']}")
            say(out, f"before: {_short(before['response'], 400)}")
            say(out, f"after: {_short(after['response'], 400)}")
