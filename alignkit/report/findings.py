"""What the checks found, on a terminal and in report.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit import checks, records
from alignkit.checks import Report
from alignkit.errors import InputError, listing
from alignkit.report.markdown import escaped
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"stop": "bold red", "look": "yellow", "note": "cyan"}


def reports_of(folder: Path) -> list[Report]:
    """What the checks say of a run; nothing where it cannot be read."""
    try:
        return [checks.examine(record) for record in records.read(folder)]
    except InputError:
        return []


def print_reports(
    reports: Sequence[Report], unread: Sequence[str], screen: Console
) -> None:
    """Every finding with its evidence, its rows and what to do."""
    for report in reports:
        say(screen, f"{report.stage}: {_counts(report)}", style="bold")
        for finding in report.findings:
            say(screen, f"  {finding.level}: {finding.title}", _STYLES[finding.level])
            say(screen, f"    {finding.evidence}")
            say(screen, f"    to do: {finding.cure}")
            if finding.rows:
                say(screen, f"    rows: {listing(finding.rows)}")
    unchecked: dict[str, list[str]] = {}
    for report in reports:
        for name, needs in report.unchecked.items():
            unchecked.setdefault(f"{name} needs {needs}", []).append(report.stage)
    for text, stages in unchecked.items():
        # of a sweep or a pipeline the same is said once
        of = "" if len(reports) == 1 else f" ({len(stages)} of {len(reports)})"
        say(screen, f"not checked{of}: {text}", style="dim")
    for text in unread:
        say(screen, f"not read: {text}", style="yellow")
    if not reports:
        say(screen, "no run has begun in this folder")


def print_alarms(reports: Sequence[Report], folder: Path, screen: Console) -> None:
    """At the end of a run: one line, and one for each alarm."""
    if not reports:
        return
    passed = sum(len(report.passed) for report in reports)
    alarms = [finding for report in reports for finding in report.alarms]
    notes = sum(len(report.findings) for report in reports) - len(alarms)
    told = [f"{passed} passed"] + [
        f"{len(alarms)} alarm{'s' * (len(alarms) > 1)}"
    ] * bool(alarms)
    told += [f"{notes} to note"] * bool(notes)
    say(screen, f"checks: {', '.join(told)} (align check {folder})")
    for finding in alarms:
        say(
            screen,
            f"  {finding.level}: {finding.stage}: {finding.title}. To do:"
            f" {finding.cure}",
            _STYLES[finding.level],
        )


def section(reports: Sequence[Report]) -> list[str]:
    """Lines of Markdown."""
    if not reports:
        return []
    lines = ["", "## What the checks say", ""]
    for report in reports:
        lines.append(f"{escaped(report.stage)}: {_counts(report)}.")
        lines += [
            f"- **{f.level}: {escaped(f.title)}.** "
            + escaped(f"{f.evidence}. To do: {f.cure}.")
            + (f" Rows: {escaped(listing(f.rows))}." if f.rows else "")
            for f in report.findings
        ]
        lines.append("")
    return lines


def _counts(report: Report) -> str:
    levels = [finding.level for finding in report.findings]
    told = [f"{levels.count(level)} {level}" for level in checks.LEVELS]
    told = [text for text in told if not text.startswith("0 ")]
    told.append(f"{len(report.passed)} passed")
    if report.unchecked:
        told.append(f"{len(report.unchecked)} not checked")
    return ", ".join(told)
