"""How wrong a grader is, by what a person says of a drawn sample."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from alignkit import Score
from alignkit.cli import main
from alignkit.errors import InputError
from alignkit.graders import labels
from alignkit.grading.bound import Graded
from alignkit.grading.stored import Fields, GradedRow, StoredRow

REWARDS = ["a", "b"]


def graded(verdicts: list[tuple[float, float]]) -> list[GradedRow]:
    return [
        GradedRow(
            StoredRow(n, {"response": f"r{n}", "truth": "t"}),
            {r: Graded(Score(v), 0.0) for r, v in zip(REWARDS, pair, strict=True)},
        )
        for n, pair in enumerate(verdicts, 1)
    ]


def drawn(rows: list[GradedRow], size: int) -> list[dict]:
    return labels.draw(
        rows, REWARDS, size, Fields(), lambda r: f"line {r.stored.number}"
    )


MANY = graded([(1, 1)] * 500 + [(1, 0)] * 30 + [(0, 1)] * 3 + [(0, 0)] * 467)


@pytest.mark.parametrize("size", [4, 10, 40, 100, 2000])
def test_half_of_the_sample_are_disagreements_as_far_as_they_go(size: int):
    sheet = drawn(MANY, size)
    split = [row for row in sheet if len(set(row["verdicts"].values())) == 2]
    assert len(sheet) == min(size, len(MANY)) == len({row["id"] for row in sheet})
    assert abs(len(split) - min(33, size / 2)) <= 2 or size > len(MANY)
    assert len({tuple(row["verdicts"].values()) for row in sheet}) == 4


@pytest.mark.parametrize("size", [4, 9, 30, 77])
def test_a_larger_sample_holds_the_smaller_one(size: int):
    smaller, larger = drawn(MANY, size), drawn(MANY, size + 20)
    assert {row["id"] for row in smaller} < {row["id"] for row in larger}


def test_a_sample_below_the_number_of_strata_is_refused():
    with pytest.raises(InputError, match="make 4 strata"):
        drawn(MANY, 3)


def judged(sheet: list[dict], right: set[str]) -> list[dict]:
    said = {True: "right", False: "wrong"}
    return [{**row, "label": said[row["response"] in right]} for row in sheet]


def truth_of(rows: list[GradedRow], right: set[str], reward: str) -> dict[str, float]:
    cells = [
        (row.grades[reward].score.reward == 1, row.stored.row["response"] in right)
        for row in rows
    ]
    hit = sum(said and is_ for said, is_ in cells)
    return {
        "precision": hit / sum(said for said, _ in cells),
        "recall": hit / sum(is_ for _, is_ in cells),
        "accuracy": sum(said == is_ for said, is_ in cells) / len(cells),
        "wrongly_right": sum(said and not is_ for said, is_ in cells) / len(cells),
        "wrongly_wrong": sum(is_ and not said for said, is_ in cells) / len(cells),
    }


@pytest.mark.parametrize("reward", REWARDS)
def test_all_rows_labelled_is_the_truth_without_an_interval(reward: str):
    right = {f"r{n}" for n in random.Random(0).sample(range(1, 1001), 520)}
    errors = asdict(labels.errors(judged(drawn(MANY, 1000), right), reward))
    for name, value in truth_of(MANY, right, reward).items():
        assert [errors[name][k] for k in ("value", "low", "high")] == [
            value
        ] * 3 or all(
            abs(errors[name][k] - value) < 1e-12 for k in ("value", "low", "high")
        )


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 60 populations, of a sample of 60 of 1,000 rows each."""
    held = total = 0
    for seed in range(60):
        rng = random.Random(seed)
        rows = graded(
            [
                (float(rng.random() < 0.5), float(rng.random() < 0.5))
                for _ in range(1000)
            ]
        )
        likely = {(1, 1): 0.95, (1, 0): 0.6, (0, 1): 0.4, (0, 0): 0.05}
        right = {
            row.stored.row["response"]
            for row in rows
            if rng.random()
            < likely[tuple(int(g.score.reward) for g in row.grades.values())]
        }
        errors = asdict(labels.errors(judged(drawn(rows, 60), right), "a"))
        for name, value in truth_of(rows, right, "a").items():
            held += errors[name]["low"] <= value <= errors[name]["high"]
            total += 1
    assert 0.90 <= held / total <= 0.99


def test_what_is_not_labelled_says_nothing_but_widens():
    sheet = drawn(MANY, 40)
    some = judged(sheet[:20], {"r1"}) + sheet[20:]
    unsure = [{**row, "label": row["label"] or "unsure"} for row in some]
    assert labels.errors(some, "a") == labels.errors(unsure, "a")
    assert labels.errors(drawn(MANY, 40), "a").accuracy.value is None


def test_a_grader_that_calls_nothing_right_has_no_precision():
    sheet = judged(drawn(graded([(0, 0)] * 5 + [(0, 1)] * 5), 10), {"r1"})
    assert labels.errors(sheet, "a").precision == labels.Estimate(None, None, None)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    said = ["1", "1.0", "2", "\x1b]0;owned\x07[red]3"] * 5
    file.write_text(
        "".join(
            json.dumps({"prompt": f"q{n}", "response": f"\\boxed{{{a}}}", "truth": "1"})
            + "\n"
            for n, a in enumerate(said)
        )
    )
    return file


def asked(file: Path, size: int = 8) -> list[str]:
    rewards = ["--reward", "math", "--reward", "exact_match:form=boxed"]
    return ["grade", str(file), *rewards, "--label", str(size)]


def align(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


def kept(file: Path) -> list[str | None]:
    return [row["label"] for row in labels.read(labels.sheet_of(file))]


def test_without_a_terminal_the_labels_are_written_by_hand(rows, capsys):
    assert align(asked(rows)) == 0
    assert "8 rows of" in (said := capsys.readouterr().out) and '"right"' in said
    sheet = labels.sheet_of(rows)
    sheet.write_text(sheet.read_text().replace('"label": null', '"label": "right"', 5))
    assert align([*asked(rows, 10), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["labels"]
    assert result["n"] == 5 and set(result["rewards"]["math"]) >= {
        "precision",
        "recall",
    }
    assert kept(rows).count("right") == 5 and len(kept(rows)) == 10
    assert align(asked(rows, 4)) == 0 and len(kept(rows)) == 10  # none is lost

    sheet.write_text(sheet.read_text().replace('"right"', '"rigth"', 1))
    assert align(asked(rows)) == 2
    told = capsys.readouterr().err
    assert f"{sheet}:" in told and "right, wrong, unsure" in told and "rigth" in told


def test_labels_of_other_verdicts_are_not_taken(rows, capsys):
    align(asked(rows))
    other = ["grade", str(rows), "--reward", "math", "--label", "8"]
    before = labels.sheet_of(rows).read_bytes()
    assert align(other) == 2
    assert "move it away" in " ".join(capsys.readouterr().err.split())
    assert labels.sheet_of(rows).read_bytes() == before


def test_a_sweep_is_no_run_to_grade(tmp_path, capsys):
    (tmp_path / "runs" / "a-seed0").mkdir(parents=True)
    (tmp_path / "sweep.json").write_text("{}")
    assert align(asked(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "is a sweep" in said and str(tmp_path / "runs" / "a-seed0") in said
    assert not labels.sheet_of(tmp_path).exists()


class Terminal:
    """`align` at a real terminal."""

    def __init__(self, arguments: list[str]) -> None:
        self.end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alignkit.cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        )
        os.close(theirs)
        self.said = ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self.end], [], [], 1.0)[0]:
                self.said += os.read(self.end, 65536).decode(errors="replace")

    def press(self, key: str, then: str) -> None:
        self.said = ""
        os.write(self.end, key.encode())
        self.wait_for(then)


def test_a_person_labels_row_after_row_and_goes_on_after_a_kill(rows):
    terminal = Terminal(asked(rows))
    terminal.wait_for("q quit")
    assert "1 of 8" in terminal.said and "\x1b]0;owned" not in terminal.said
    assert "exact_match" not in terminal.said  # blind to what the graders say
    terminal.press("r", "2 of 8")
    terminal.press("b", "now right")
    terminal.press("w", "2 of 8")
    terminal.press("u", "3 of 8")
    terminal.process.send_signal(signal.SIGKILL)
    terminal.process.wait()
    os.close(terminal.end)
    assert kept(rows) == ["wrong", "unsure"] + [None] * 6

    terminal = Terminal(asked(rows))
    terminal.wait_for("3 of 8")
    for place in range(3, 8):
        terminal.press("r", f"{place + 1} of 8")
    terminal.process.send_signal(signal.SIGINT)  # Ctrl-C keeps them
    terminal.wait_for("7 of 8 rows have a label")
    terminal.wait_for("95 %")
    assert terminal.process.wait(60) == 0
    os.close(terminal.end)
    assert kept(rows)[2:] == ["right"] * 5 + [None]
