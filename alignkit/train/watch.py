"""The checks that are worth stopping for, asked while a run goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from alignkit import checks, records
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.run import Run

FIRST = 5  # steps


class ChecksCallback(TrainerCallback):
    """Says each alarm once. It looks at steps 5, 10, 20, 40 and so on, so that reading
    the run's files costs no more than in proportion to them.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self.run = run
        self.console = console
        self.due = FIRST
        self.alarms = list(run.manifest.get("alarms", []))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the step's own row is logged. What is said stands in the manifest."""
        if state.global_step < self.due or not self.run.writes:
            return
        self.due = 2 * state.global_step
        said = {alarm["check"] for alarm in self.alarms}
        for record in records.read(self.run.folder):
            for finding in checks.examine(record, live=True).alarms:
                if finding.check not in said:
                    self._say(state.global_step, finding)

    def _say(self, step: int, finding: checks.Finding) -> None:
        text = (
            f"{finding.level} (step {step}): {finding.title}: {finding.evidence}."
            f" To do: {finding.cure}"
        )
        logging.getLogger("alignkit").warning(text)
        say(self.console, text, style="bold red")
        said = {"step": step, "check": finding.check, "level": finding.level}
        self.alarms.append({**said, "title": finding.title})
        self.run.update(alarms=self.alarms)
