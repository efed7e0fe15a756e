"""What is logged and written of the rewards of a batch."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from alignkit import Reward, Score
from alignkit.errors import WorkError
from alignkit.grading import Grader, bind
from alignkit.run import Run, read_rows
from alignkit.train.rewards import Answers, RewardBoard, combine, deciding

QUESTIONS = [
    {"question": "2+2", "truth": "4", "id": "q0"},
    {"question": "?", "truth": {"all": ["4"], "nan": float("nan")}, "level": 10**5000},
]
INPUTS = [{"prompt": f"p{row}", "row": row} for row in (1, 1, 0, 0)]


def graded(response: str, truth: object) -> Score:
    """Without parts where there is nothing to look at, as a verdict that timed out."""
    if not response:
        return Score(0.0, "timeout", explanation="too slow")
    answer = float("4" in response)
    return Score(1.0, parts={"format": 1.0, "answer": answer}, stage="text")


def crashing(response: str) -> float:
    return 1.0 / (len(response) - 1)


class Trained:
    """A board and what it logs, driven as a trainer does it."""

    def __init__(self, root: Path, grader: Grader, *functions, **zero: bool) -> None:
        rewards = [bind(Reward(f.__name__, f, where="process")) for f in functions]
        answers = Answers(QUESTIONS, {"dataset": "jsonl", "path": "q.jsonl"})
        self.run = Run.create(root, "board")
        self.logged: dict[str, list] = defaultdict(list)
        self.board = RewardBoard(
            rewards,
            [1.0] * len(rewards),
            zero,
            rewards[0].name,
            grader,
            self.run,
            {"step": answers, "validation": answers},
        )

    def grade(self, texts, step: int = 1, kind: str = "step") -> None:
        said = [{"response": text, "tokens": len(text)} for text in texts]
        self.board.begin(INPUTS, said, step, kind)
        for function in self.board.functions:
            function(
                ["p"] * 4,
                log_metric=lambda name, value: self.logged[name].append(value),
                log_extra=lambda name, values: self.logged[name].extend(values),
            )

    def finish(self, first: int = 0, groups: int = 2) -> None:
        rows = [
            {"group": n // 2, "sample": n % 2, "advantage": n / 2}
            for n in range(first, first + 4)
        ]
        self.board.finish(rows, groups)

    def rows(self, name: str = "step-000001") -> list:
        return list(read_rows(self.run.folder / "rollouts" / f"{name}.jsonl"))


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1) as grader:
        yield grader


def test_parts_are_logged_although_the_first_response_has_none(tmp_path, grader):
    trained = Trained(tmp_path, grader, graded)
    trained.grade(["", "it is 4", "it is 5", "4"])
    logged = trained.logged
    assert logged["parts/format"] == [0.75] and logged["parts/answer"] == [0.5]
    assert logged["status"] == ["timeout", "ok", "ok", "ok"]
    assert logged["status/timeout"] == [0.25]


def test_a_rollout_is_written_once_with_its_advantage_and_where_it_comes_from(
    tmp_path, grader
):
    trained = Trained(tmp_path, grader, graded)
    trained.grade(["", "it is 4", "it is 5", "4"])
    assert not (trained.run.folder / "rollouts").exists()
    trained.finish()
    rows = trained.rows()
    assert [(row["group"], row["sample"], row["advantage"]) for row in rows] == [
        (0, 0, 0.0),
        (0, 1, 0.5),
        (1, 0, 1.0),
        (1, 1, 1.5),
    ]
    assert [row["source"] for row in rows[1:3]] == [
        {"index": 1, "id": None, "file": "q.jsonl"},
        {"index": 0, "id": "q0", "file": "q.jsonl"},
    ]
    assert rows[0]["truth"] == {"all": ["4"], "nan": None}
    assert rows[0]["metadata"]["level"] == hex(10**5000)
    assert (rows[0]["status"], rows[0]["explanation"]) == ("timeout", "too slow")
    assert rows[3]["stage"] == "text" and rows[3]["rewards"]["graded"] == {
        "reward": 1.0,
        "status": "ok",
        "parts": {"format": 1.0, "answer": 1.0},
        "stage": "text",
        "explanation": "",
    }


def test_groups_are_counted_through_a_step_and_apart_from_the_validation(
    tmp_path, grader
):
    trained = Trained(tmp_path, grader, graded)
    for step, kind in ((1, "step"), (1, "step"), (1, "validation"), (2, "step")):
        trained.grade(["4"] * 4, step, kind)
        trained.finish(first=4, groups=4)  # the second of two processes
    groups = {
        name: [row["group"] for row in trained.rows(name)]
        for name in ("step-000001", "validation-000001", "step-000002")
    }
    assert groups == {
        "step-000001": [2, 2, 3, 3, 6, 6, 7, 7],
        "validation-000001": [2, 2, 3, 3],
        "step-000002": [2, 2, 3, 3],
    }


def test_a_reward_that_fails_stops_the_run_with_its_sample_saved(tmp_path, grader):
    trained = Trained(tmp_path, grader, graded, crashing)
    with pytest.raises(WorkError, match=r"(?s)'crashing' failed at step 1.*rollouts"):
        trained.grade(["it is 4", "b", "4", "5"])
    row = trained.rows()[1]
    assert (row["status"], row["advantage"]) == ("ok", None)
    assert row["rewards"]["crashing"]["status"] == "error"
    assert "ZeroDivisionError" in row["rewards"]["crashing"]["explanation"]


def test_a_reward_whose_failure_counts_as_zero_stops_nothing(tmp_path, grader):
    trained = Trained(tmp_path, grader, graded, crashing, crashing=True)
    trained.grade(["it is 4", "b", "44", "55"])
    trained.finish()
    statuses = [row["rewards"]["crashing"]["status"] for row in trained.rows()]
    assert statuses == ["ok", "error", "ok", "ok"]


@pytest.mark.parametrize("verdict", ["a", "b"])
def test_one_reward_decides_status_stage_and_parts(verdict):
    said = {
        "a": Score(1.0, stage="first", explanation="right", parts={"answer": 1.0}),
        "b": Score(-1.0, "unparsed", stage="second", parts={"answer": 0.0, "c": 2.0}),
    }
    row = combine(said, [2.0, 1.0], verdict)
    assert (row["reward"], row["status"]) == (1.0, said[verdict].status)
    assert row["stage"] == said[verdict].stage
    assert row["parts"] == {"answer": said[verdict].parts["answer"], "c": 2.0}


def test_a_reward_of_weight_0_adds_nothing_whatever_it_gives():
    said = {"a": Score(1.0), "b": Score(1e308)}
    assert combine(said, [1.0, 0.0], "a")["reward"] == 1.0


@pytest.mark.parametrize(
    ("rewards", "name"),
    [
        ({"a": {}}, "a"),
        ({"a": {}, "b": {"weight": 0.5}}, "a"),
        ({"a": {"weight": 0.5}, "b": {}}, "b"),
        ({"a": {}, "b": {"weight": 0.0, "decides": True}}, "b"),
    ],
)
def test_the_recipe_or_the_greatest_weight_says_which_reward_decides(rewards, name):
    from alignkit.recipe.schema.sections import Reward as Entry

    entries = {key: Entry(**stated) for key, stated in rewards.items()}
    assert deciding(entries) == name
