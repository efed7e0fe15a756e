"""Rollouts as columns: what a statistic needs of a hundred thousand of them, without
their texts, of which a few are held.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.run.rows import Row, read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = 4000  # responses that are held
# what ends a turn in the chat formats of the field
MARKERS = ("<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "\nUser:")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass
class Rollouts:
    """One entry a rollout in every column, in the order of training."""

    step: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)  # its number within the run
    reward: list[float] = field(default_factory=list)  # NaN: not scored
    advantage: list[float] = field(default_factory=list)  # NaN: unknown
    status: list[str] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # -1: unknown
    cut: list[bool] = field(default_factory=list)  # at max_new_tokens
    format: list[float] = field(
        default_factory=list
    )  # NaN: the reward has no such part
    twice: list[bool] = field(default_factory=list)  # <think> of the prompt repeated
    runs_on: list[bool] = field(default_factory=list)  # into a further turn
    holds_truth: list[bool] = field(default_factory=list)  # at the end of a wrong one
    question: list[int] = field(default_factory=list)  # hash of the prompt
    source: list[int] = field(default_factory=list)  # row of the data; -1: unknown
    place: list[tuple[str, int]] = field(default_factory=list)  # file, line from 1
    texts: dict[int, str] = field(default_factory=dict)  # responses by index

    def __len__(self) -> int:
        return len(self.step)

    @cached_property
    def steps(self) -> list[int]:
        """The steps that have rollouts, in order."""
        return sorted(set(self.step))

    def array(self, name: str) -> NDArray[Any]:
        """A column as an array (N,)."""
        import numpy as np

        return np.asarray(getattr(self, name))

    def last(self, steps: int) -> NDArray[Any]:
        """Which rollouts (N,) belong to the last `steps` steps."""
        first = self.steps[-steps:][0] if self.steps else 0
        return self.array("step") >= first

    def show(self, chosen: NDArray[Any], count: int = 3) -> tuple[str, ...]:
        """`file:line` of the first few that a mask (N,) chooses, newest step first."""
        indices = chosen.nonzero()[0][::-1][:count]
        return tuple("{}:{}".format(*self.place[index]) for index in indices)


def read_rollouts(folder: Path, unread: list[str]) -> Rollouts:
    """The rollouts that GRPO, RLOO or expert iteration trained on; what cannot be read
    is left out and named in `unread`.
    """
    paths = sorted(folder.glob("rollouts/step-*.jsonl"))
    paths += sorted(folder.glob("iterations/*/rollouts.jsonl"))
    columns = Rollouts()
    groups: dict[Any, int] = {}
    for path in paths:
        file = str(path.relative_to(folder))
        try:
            for line, row in enumerate(read_rows(path), 1):
                key = (row["step"], file, row["group"])
                number = groups.setdefault(key, len(groups))
                _append(columns, row, number, (file, line))
        except (InputError, OSError) as error:
            unread.append(str(error))
    _thin(columns)
    return columns


def _append(columns: Rollouts, row: Row, group: int, place: tuple[str, int]) -> None:
    prompt = row["prompt"] if isinstance(row["prompt"], str) else ""
    response = str(row["response"])
    status = str(row["status"])
    columns.step.append(row["step"] if isinstance(row["step"], int) else 0)
    columns.group.append(group)
    columns.reward.append(_number(row["reward"]))
    columns.advantage.append(_number(row["advantage"]))
    columns.status.append(status)
    columns.stage.append(str(row["stage"]))
    columns.tokens.append(row["tokens"] if isinstance(row["tokens"], int) else -1)
    columns.cut.append(row["finish_reason"] == "length")
    parts = row["parts"] if isinstance(row["parts"], dict) else {}
    named = [value for name, value in parts.items() if "format" in name]
    columns.format.append(_number(named[0]) if named else float("nan"))
    opened = prompt.rstrip().endswith("<think>")
    columns.twice.append(opened and response.lstrip().startswith("<think>"))
    columns.runs_on.append(_runs_on(prompt, response))
    wrong = status in ("wrong", "unparsed")
    columns.holds_truth.append(wrong and _ends_with(response, row["truth"]))
    columns.question.append(hash(str(row["prompt"])))
    source = row["source"]
    columns.source.append(source["index"] if isinstance(source, dict) else -1)
    columns.place.append(place)
    columns.texts[len(columns) - 1] = response
    if len(columns.texts) > 2 * TEXTS:
        _thin(columns)


def _thin(columns: Rollouts) -> None:
    """Hold every n-th response only, evenly over the run."""
    every = -(-len(columns) // TEXTS)
    if every > 1:
        texts = columns.texts.items()
        columns.texts = {index: text for index, text in texts if index % every == 0}


def _runs_on(prompt: str, response: str) -> bool:
    return any(
        marker in response and (marker.startswith("<|") or marker.strip() in prompt)
        for marker in MARKERS
    )


def _ends_with(response: str, truth: Any) -> bool:
    """Whether the last number, or the last words, of a response are the truth."""
    expected = str(truth).strip()
    if not isinstance(truth, str | int | float) or not expected:
        return False
    numbers = _NUMBER.findall(response[-400:])
    if _NUMBER.fullmatch(expected):
        return bool(numbers) and numbers[-1].replace(",", "") == expected.replace(
            ",", ""
        )
    return len(expected) >= 3 and expected in response[-len(expected) - 40 :]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
