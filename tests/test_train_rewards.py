"""What is logged and written of the rewards of a batch."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit import Reward, Score
from alignkit.grading import Grader, bind
from alignkit.run import Run, read_jsonl
from alignkit.train.rewards import RewardBoard


def graded(response: str, truth: str) -> Score:
    """Without parts where there is nothing to look at, as a verdict that timed out."""
    return (
        Score(1.0, parts={"format": 1.0, "answer": float(truth in response)})
        if response
        else Score(0.0, "timeout")
    )


def test_parts_are_logged_although_the_first_response_has_none(tmp_path: Path):
    run = Run.create(tmp_path, "board")
    reward = bind(Reward("mine", graded, where="process"))
    rows = [{"prompt": "p", "truth": '"4"', "metadata": "{}"}] * 4
    texts = ["", "it is 4", "it is 5", "4"]
    logged: dict[str, list[float]] = defaultdict(list)
    columns = {
        "truth": [row["truth"] for row in rows],
        "metadata": [row["metadata"] for row in rows],
        "completion_ids": [[1], [1, 2], [1], [1]],
        "trainer_state": SimpleNamespace(global_step=0),
        "log_metric": lambda name, value: logged[name].append(value),
        "log_extra": lambda name, values: logged[name].extend(values),
    }
    with Grader(workers=1) as grader:
        board = RewardBoard([reward], [1.0], {}, grader, run)
        board.begin(rows, texts)
        board.functions[0](["p"] * 4, texts, **columns)
    assert logged["parts/format"] == [0.75] and logged["parts/answer"] == [0.5]
    assert logged["status"] == ["timeout", "ok", "ok", "ok"] and logged[
        "status/timeout"
    ] == [0.25]
    written = read_jsonl(run.folder / "rollouts" / "step-000001.jsonl")
    assert [row["reward"] for row in written] == pytest.approx([0, 1, 1, 1])
