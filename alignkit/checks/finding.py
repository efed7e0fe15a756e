"""A finding, a check, and the report of all checks on one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from alignkit.errors import InputError
from alignkit.records import Record

# `stop`: nothing more will be learnt, or what is learnt is wrong. `look`: likely a
# fault. `note`: worth knowing, no alarm.
LEVELS = ("stop", "look", "note")


@dataclass(frozen=True)
class Finding:
    """What a check found. `rows` are `file:line` of rows that show it."""

    level: str
    title: str
    evidence: str
    cure: str
    rows: tuple[str, ...] = ()
    check: str = ""
    stage: str = ""


class Lacking(Exception):
    """The run holds nothing that a check could judge; the message says what it would
    need.
    """


@dataclass(frozen=True)
class Check:
    """A named pure function; `live` ones are also asked while the run goes on. What
    the checks it `explains` find beside it is a consequence, and noted only.
    """

    name: str
    methods: tuple[str, ...]
    live: bool
    explains: tuple[str, ...]
    function: Callable[[Record], Finding | None]

    def __call__(self, record: Record) -> Finding | None:
        return self.function(record)


CHECKS: list[Check] = []


def check(
    *methods: str, live: bool = False, explains: tuple[str, ...] = ()
) -> Callable[[Callable[[Record], Finding | None]], Check]:
    """Declare a check of these methods; its name is the function's."""

    def declare(function: Callable[[Record], Finding | None]) -> Check:
        declared = Check(function.__name__, methods, live, explains, function)
        CHECKS.append(declared)
        return declared

    return declare


@dataclass
class Report:
    """What the checks said of one run, or of one stage of a pipeline."""

    stage: str
    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)  # check -> what it needs

    @property
    def alarms(self) -> list[Finding]:
        """The findings that are no mere notes."""
        return [finding for finding in self.findings if finding.level != "note"]


def examine(record: Record, *, live: bool = False) -> Report:
    """Ask every check of the run's method; the gravest findings come first."""
    report = Report(record.label)
    for each in CHECKS:
        if record.method not in each.methods or (live and not each.live):
            continue
        try:
            finding = each(record)
        except (Lacking, InputError) as lacking:  # no data, or data that are damaged
            report.unchecked[each.name] = str(lacking)
            continue
        if finding is None:
            report.passed.append(each.name)
        else:
            report.findings.append(
                replace(finding, check=each.name, stage=record.label)
            )
    named = {finding.check for finding in report.findings}
    explained = {
        name for each in CHECKS if each.name in named for name in each.explains
    }
    report.findings = [
        replace(finding, level="note") if finding.check in explained else finding
        for finding in report.findings
    ]
    report.findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return report
