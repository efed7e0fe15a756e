"""Print a few answers after each eval of a run: what CS336 calls log_generations, on
the terminal.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from alignkit import Callback, RunInfo, echo, hookimpl

SHOWN = 3
WIDTH = 300


def eval_finished(run: RunInfo, name: str, summary: Mapping[str, Any]) -> None:
    """Show the first answers with their truth and status."""
    path = run.folder / "evals" / f"{name}@{summary['step']}" / "samples.jsonl"
    with path.open(encoding="utf-8") as file:
        for line in (next(file, "") for _ in range(SHOWN)):
            if line:
                row = json.loads(line)
                answer = row["response"][:WIDTH]
                echo(
                    f"{name}@{summary['step']} {row['id']} [{row['status']}] truth"
                    f" {row['truth']!r}: {answer!r}"
                )


@hookimpl
def align_callbacks() -> Iterator[Callback]:
    yield Callback(name="show_samples", eval_finished=eval_finished)
