"""Sentences about a run. Each is computed from what was measured; none is an author's."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.checks.finding import Lacking
from alignkit.checks.responses import Pushed, pushed
from alignkit.errors import InputError
from alignkit.records import Eval, Record
from alignkit.report.versus import Versus, versus


def of_run(records: Sequence[Record]) -> list[str]:
    """What changed in each stage, by its evals, and what its rewards favoured."""
    told: list[str] = []
    before: dict[str, Eval] = {}
    for record in records:
        last = {each.name: each for each in record.evals}
        first = {each.name: each for each in reversed(record.evals)}
        for name, each in last.items():
            base = before.get(name, first[name])
            if base.folder != each.folder:
                told += _changed(record.label, base, each)
        told += _favoured(record)
        before |= last
    return told


def of_versus(base: Eval, other: Eval, compared: Versus) -> str:
    """The difference of two evals in points, with its interval."""
    difference = compared.difference
    interval = difference.interval or difference.bootstrap
    counts = (
        f"{len(compared.fixed)} fixed, {len(compared.broken)} broken of"
        f" {_questions(compared)}"
    )
    values = f"from {base.summary['value']:.3f} to {other.summary['value']:.3f}"
    text = f"{other.name} {other.summary['metric']} went {values}"
    if interval is None:
        return f"{text} ({counts})."
    within = interval.low <= 0 <= interval.high
    return (
        f"{text}: {100 * difference.value:+.1f} points (95 %"
        f" {100 * interval.low:+.1f} to {100 * interval.high:+.1f}; {counts})"
        + (", which may be chance." if within else ".")
    )


def _changed(label: str, base: Eval, other: Eval) -> list[str]:
    try:
        return [f"{label}: {of_versus(base, other, versus(base, other))}"]
    except InputError:  # no common questions
        return []


def _favoured(record: Record) -> list[str]:
    try:
        features = pushed(record)
    except Lacking:
        return []
    if not features:
        return []
    return [f"{record.label}: {'; '.join(map(_feature, features[:2]))}."]


def _feature(each: Pushed) -> str:
    way = "favours" if each.gap > 0 else "holds down"
    moved = abs(each.late - each.early) >= 0.01
    change = (
        f"from {each.early:.0%} to {each.late:.0%}" if moved else f"at {each.late:.0%}"
    )
    return (
        f"the reward {way} {each.name} (mean advantage {each.gap:+.2f}), whose share"
        f" {'went' if moved else 'stayed'} {change}"
    )


def _questions(compared: Versus) -> int:
    sides = (
        compared.fixed,
        compared.broken,
        compared.still_wrong,
        compared.still_right,
    )
    return sum(map(len, sides))
