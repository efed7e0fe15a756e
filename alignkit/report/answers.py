"""Questions whose answer changed in the course of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.run import read_rows
from alignkit.run.rows import Row

SHOWN = 3
LONGEST = 100  # characters that are shown of a text


@dataclass(frozen=True)
class Changed:
    """A question, its truth, and the answer at the first, the last but one and the last
    eval: when, text, reward.
    """

    question: str
    truth: str
    answers: list[tuple[str, str, str]]


def changed(homes: Mapping[str, Path]) -> Iterator[Changed]:
    """A few of the stages' evals, by name and run folder."""
    series: dict[str, list[tuple[str, dict[str, Row]]]] = {}
    for stage, home in homes.items():
        for path in sorted(home.glob("evals/*/samples.jsonl"), key=_step):
            when = f"{stage}, step {_step(path)}" if _step(path) else f"before {stage}"
            rows = {str(row["id"]): row for row in read_rows(path)}
            name = path.parent.name.rpartition("@")[0]
            series.setdefault(name, []).append((when, rows))
    told = 0
    for evals in series.values():
        first, last = evals[0][1], evals[-1][1]
        for name, row in last.items():
            if name not in first or first[name]["response"] == row["response"]:
                continue
            told += 1
            if told > SHOWN:
                return
            chosen = [evals[0], *evals[1:-1][-1:], evals[-1]]
            answers = [
                (when, _ending(rows[name]["response"]), _reward(rows[name]))
                for when, rows in chosen
                if name in rows
            ]
            yield Changed(_ending(_question(row)), _ending(row["truth"]), answers)


def _question(row: Row) -> object:
    """What was asked, without the template where the data tell it apart."""
    asked = row["metadata"].get("question")
    if asked is None and isinstance(row["prompt"], list) and row["prompt"]:
        asked = row["prompt"][-1].get("content")
    return asked if asked is not None else row["prompt"] or row["id"]


def _reward(row: Row) -> str:
    return "" if row["reward"] is None else f"{row['reward']:g}"


def _step(path: Path) -> int:
    return int(path.parent.name.rpartition("@")[2])


def _ending(text: object) -> str:
    """The end of a text, where answers stand, on one line; control characters of a
    model's output stay visible.
    """
    shown: Any = json.dumps(str(text), ensure_ascii=False)[1:-1]
    return shown if len(shown) <= LONGEST else "…" + shown[-LONGEST:]
