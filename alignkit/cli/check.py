"""`align check`: what a run's own files say about its health."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from alignkit.cli.common import console, json_option, print_json


@click.command()
@click.argument("folder", metavar="RUN|SWEEP", type=click.Path(path_type=Path))
@json_option
def check(folder: Path, as_json: bool) -> int:
    """Look for what goes wrong silently in a run, a pipeline or the jobs of a sweep:
    dead rewards, truncated responses, a policy that collapsed, evals too small, and
    what the reward teaches. Runs that go on can be checked too.

    Exit code 1 when a finding is worth stopping for.
    """
    from alignkit import checks, records
    from alignkit.report import findings

    read = records.read(folder)
    reports = [checks.examine(record) for record in read]
    unread = [text for record in read for text in record.unread]
    if as_json:
        print_json({"reports": [asdict(each) for each in reports], "unread": unread})
    else:
        findings.print_reports(reports, unread, console())
    return int(any(f.level == "stop" for each in reports for f in each.findings))
