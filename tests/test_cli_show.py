"""`align show`: what it shows is what the rows hold; hostile text stays text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import GROUPS, SIZE, STEPS, Made

from alignkit.cli import main


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]):
    """Runs `align show`: (exit code, what it printed, what it said of errors)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["show", *map(str, arguments)])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def made(tmp_path: Path) -> Made:
    run = Made(tmp_path / "run", "grpo")
    run.folder.mkdir()
    run.write()
    return run


def test_a_step_shows_its_groups_as_the_rows_hold_them(show, made):
    code, out, _ = show(made.folder, "--step", 7, "--json")
    assert code == 0
    groups = json.loads(out)
    assert [group["group"] for group in groups] == list(range(GROUPS))
    stored = [row for row in made.rows if row["step"] == 7]
    shown = [row for group in groups for row in group["rows"]]
    assert [row["response"] for row in shown] == [row["response"] for row in stored]


def test_a_group_shows_every_response_with_reward_and_explanation(show, made):
    _, out, _ = show(made.folder, "--step", 7, "--group", 2)
    assert out.count("reward ") == SIZE and out.count("graded: exact") == SIZE


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--wrong"], lambda row: row["status"] == "wrong"),
        (["--status", "ok"], lambda row: row["status"] == "ok"),
        (
            ["--search", "QUESTION 9-3:"],
            lambda row: row["step"] == 9 and row["group"] == 3,
        ),
        (["--truncated"], lambda row: False),
        (
            ["--wrong", "--step", "5"],
            lambda row: row["step"] == 5 and row["status"] == "wrong",
        ),
    ],
)
def test_filters_take_the_rows_they_name(show, made, flags, wanted):
    _, out, _ = show(made.folder, *flags, "--limit", 10_000, "--json")
    expected = [row["response"] for row in made.rows if wanted(row)]
    assert [row["response"] for row in json.loads(out)] == expected


def test_a_question_is_followed_across_the_steps(show, made):
    for row in made.rows:
        if row["group"] == 0:
            row["metadata"] = {"question": "What is one?"}
    for file in (made.folder / "rollouts").iterdir():
        file.unlink()
    made.write()
    _, out, _ = show(made.folder, "--question", "what is ONE", "--json")
    assert [group["step"] for group in json.loads(out)] == list(range(1, STEPS + 1))


def test_evals_of_two_runs_show_fixed_and_broken_with_a_paired_interval(show, tmp_path):
    for name, right in (("a", {0, 1, 2, 3}), ("b", {2, 3, 4, 5, 6, 7, 8, 9})):
        run = Made(tmp_path / name, "sft")
        run.folder.mkdir()
        run.samples = [
            {
                "id": f"q{n}",
                "prompt": f"q{n}",
                "response": "r",
                "reward": float(n in right),
            }
            for n in range(20)
        ]
        run.write()
    code, out, _ = show(
        tmp_path / "b", "--eval", "quiz", "--against", tmp_path / "a", "--json"
    )
    told = json.loads(out)
    assert code == 0
    assert (told["fixed"], told["broken"], told["still wrong"]) == (6, 2, 10)
    assert told["difference"]["value"] == pytest.approx(0.2)
    interval = told["difference"]["bootstrap"]
    assert interval["low"] < 0.2 < interval["high"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--step", "400"], "no rollouts of step 400; it has 60 steps, 1 to 60"),
        (["--step", "3", "--group", "99"], "step 3 has no group 99: 0 to 7"),
        (["--group", "1"], "name it with --step"),
        (["--eval", "qiz"], "no finished eval qiz; it has quiz@0, quiz@30, quiz@60"),
        (["--against", "@0"], "name it with --eval"),
        (["--stage", "sft"], "has no stage sft; it has made"),
        (["--question", "no such"], "no rollout asks 'no such'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(show, made, flags, message):
    code, _, err = show(made.folder, *flags)
    assert code == 2 and message in " ".join(err.split())


def test_runs_of_a_folder_are_listed(show, made):
    code, out, _ = show(made.folder.parent, "--json")
    (line,) = json.loads(out)
    assert code == 0 and line["evals"] == "quiz 0.8"


def test_a_folder_without_runs_is_refused(show, tmp_path):
    code, _, err = show(tmp_path)
    assert code == 2 and "no run folder lies in it" in err


def test_hostile_text_neither_moves_the_terminal_nor_is_taken_for_markup(
    show, tmp_path
):
    run = Made(tmp_path / "run", "grpo")
    run.folder.mkdir()
    run.every(response="\x1b]0;owned\x07[bold]x[/bold][/no] \u202e", truth="[red]1")
    run.write()
    for flags in (["--step", "1"], ["--step", "1", "--group", "0"], ["--wrong"]):
        code, out, _ = show(run.folder, *flags)
        assert code == 0
        assert not set(out) & {"\x1b", "\x07", "\u202e"}
        assert "[red]1" in out
