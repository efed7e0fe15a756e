"""Each check finds the fault that is planted for it, and is silent on a healthy run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import SIZE, STEPS, Made

from alignkit import checks
from alignkit.cli import cli, main
from alignkit.run import write_json


def dead(made: Made) -> None:
    made.every(reward=0.0, status="unparsed", stage="format", advantage=0.0)


def flat(made: Made) -> None:
    for row in made.late():
        row.update(reward=0.0, status="wrong", advantage=0.0)


def unformed(made: Made) -> None:
    for row in made.rows:
        row["status"] = "unparsed"
        row["parts"]["format_reward"] = 0.0


def refused(made: Made) -> None:
    for row in made.late():
        row.update(status="wrong", response=f"so it is {row['truth']}.")


def failing(made: Made) -> None:
    for row in made.rows[::20]:
        row.update(status="timeout")


def gamed(made: Made) -> None:
    made.evals["quiz@60"].update(value=0.3, low=0.26, high=0.34)


def cut(made: Made) -> None:
    for number, row in enumerate(made.late()):
        row.update(finish_reason="length" if number % 2 else "stop")


def cut_more(made: Made) -> None:
    dice = random.Random(1)
    for row in made.rows:
        if dice.random() < 0.25 * row["step"] / STEPS:
            row.update(finish_reason="length", status="wrong")


def longer(made: Made) -> None:
    made.log("train/response_length", {s: 20.0 + s for s in range(61)})
    made.log("train/response_length_wrong", {s: 20.0 + 3 * s for s in range(61)})
    made.log("train/reward", 0.4)


def twice(made: Made) -> None:
    for row in made.rows[::4]:
        row["response"] = "<think>" + row["response"]


def on(made: Made) -> None:
    for row in made.rows[::9]:
        row["response"] += "<|im_end|>\n<|im_start|>user\nmore"


def spikes(made: Made) -> None:
    for row in made.metrics[30::8]:
        row["train/grad_norm"] = 100.0


def collapsed(made: Made) -> None:
    made.log("train/reward", 0.01, after=45)


def no_exploring(made: Made) -> None:
    made.log("train/entropy", 0.01, after=20)
    made.log("train/distinct_responses", 1.0 - 0.1, after=20)
    made.log("train/reward", 0.3, after=20)
    made.metrics[5]["train/reward"] = 0.5


def overfitted(made: Made) -> None:
    made.log("validation/loss", {s: 2.0 + abs(s - 30) / 30 for s in range(61)})


def diverged(made: Made) -> None:
    name = "train/nll" if made.method == "sft" else "train/loss"
    made.log(name, 3.5, after=40)


def trivial(made: Made) -> None:
    made.log("train/rewards/accuracies", 1.0, after=1)
    made.log("train/loss", 0.001, after=1)


def falling(made: Made) -> None:
    made.log("train/rewards/chosen", {s: -0.1 * s for s in range(61)})
    made.log("train/nll", {s: 2.0 + s / 20 for s in range(61)})


def leaked(made: Made) -> None:
    for number, sample in enumerate(made.samples[:40]):
        sample["prompt"] = made.rows[number * SIZE]["prompt"]


def small(made: Made) -> None:
    for summary in made.evals.values():
        summary.update(n=8, value=0.5, low=0.2, high=0.8)


def biased(made: Made) -> None:
    for number, sample in enumerate(made.samples):
        won = [1.0, 0.0] if number % 3 == 0 else [1.0, 1.0]
        sample["verdicts"] = [
            {
                "judge": "j",
                "order": order,
                "reward": reward,
                "status": "ok",
                "explanation": "",
            }
            for order, reward in enumerate(won)
        ]


def verbose(made: Made) -> None:
    for summary in made.evals.values():
        summary["provenance"] = {"judge": "j"}
    for sample in made.samples:
        sample["reward"] = float(len(sample["response"]) > 3)


def opened(made: Made) -> None:
    made.evals["quiz@60"]["status"] = {"ok": 400, "open": 90, "refused": 10}


PLANTED = {
    "dead_reward": ("grpo", dead, "stop"),
    "groups_without_variance": ("grpo", flat, "stop"),
    "format_stuck": ("grpo", unformed, "stop"),
    "right_but_refused": ("grpo", refused, "stop"),
    "grader_faults": ("rloo", failing, "look"),
    "reward_gamed": ("grpo", gamed, "stop"),
    "truncated": ("grpo", cut, "look"),
    "cut_is_wrong": ("grpo", cut_more, "look"),
    "length_explosion": ("grpo", longer, "look"),
    "thinking_opened_twice": ("grpo", twice, "look"),
    "turn_runs_on": ("expert_iteration", on, "look"),
    "zero_gradient": ("sft", lambda made: made.log("train/grad_norm", 0.0), "stop"),
    "gradient_spikes": ("dpo", spikes, "look"),
    "clipping": ("grpo", lambda made: made.log("train/clip_fraction", 0.4), "stop"),
    "kl_blow_up": ("rloo", lambda made: made.log("train/kl", 1.0, after=40), "look"),
    "stale_sampler": (
        "grpo",
        lambda made: made.log("train/sync_difference/mean", 0.2, after=10),
        "stop",
    ),
    "collapse": ("grpo", collapsed, "stop"),
    "entropy_collapse": ("grpo", no_exploring, "look"),
    "overfit": ("sft", overfitted, "look"),
    "no_loss": ("sft", lambda made: made.log("train/loss", 0.0), "stop"),
    "first_loss": ("sft", lambda made: made.log("train/nll", 9.0), "look"),
    "divergence": ("sft", diverged, "look"),
    "chosen_falls": ("dpo", falling, "look"),
    "trivial_pairs": ("dpo", trivial, "look"),
    "trained_on_the_test": ("grpo", leaked, "look"),
    "eval_too_small": ("sft", small, "look"),
    "judge_prefers_a_place": ("dpo", biased, "look"),
    "judge_prefers_length": ("dpo", verbose, "note"),
    "open_judgements": ("dpo", opened, "look"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_by_its_check(name: str, tmp_path: Path):
    method, plant, level = PLANTED[name]
    made = Made(tmp_path, method)
    plant(made)
    named = {finding.check: finding for finding in made.report().findings}
    assert named[name].level == level
    for text in (named[name].title, named[name].evidence, named[name].cure):
        assert text and "nan" not in text


def test_every_check_has_a_planted_fault():
    # what is pushed is told of every run whose advantages differ by a feature
    assert {check.name for check in checks.CHECKS} == {*PLANTED, "what_is_pushed"}


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "rloo", "expert_iteration"])
def test_a_healthy_run_raises_no_alarm(method: str, tmp_path: Path):
    report = Made(tmp_path, method).report()
    assert report.alarms == []
    assert report.passed


def test_what_the_reward_favours_is_named_with_its_shares(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    for row in made.rows:
        boxed = row["sample"] % 2 == 0 and row["step"] > 20
        row["advantage"] = 0.5 if boxed else -0.5 + 0.01 * row["sample"]
        row["response"] = "\\boxed{1}" if boxed else row["response"]
    (finding,) = made.report().findings
    assert finding.check == "what_is_pushed" and finding.level == "note"
    assert "a box: favoured" in finding.evidence


def test_noise_is_not_said_to_be_pushed(tmp_path: Path):
    made, dice = Made(tmp_path, "grpo"), random.Random(2)
    for row in made.rows:
        row["advantage"] = dice.gauss(0, 1)
    assert made.report().findings == []


def test_rows_that_are_named_show_the_fault(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    twice(made)
    (finding,) = [
        f for f in made.report().findings if f.check == "thinking_opened_twice"
    ]
    for place in finding.rows:
        file, _, line = place.rpartition(":")
        row = json.loads((tmp_path / file).read_text().splitlines()[int(line) - 1])
        assert row["response"].startswith("<think>")


def test_a_check_without_data_says_what_it_needs(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    made.rows, made.evals = [], {}
    report = made.report()
    assert "200 rollouts" in report.unchecked["dead_reward"]
    assert "an eval" in report.unchecked["eval_too_small"]


def test_live_checks_are_the_stop_worthy_ones(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    dead(made)
    small(made)
    assert [f.check for f in made.report(live=True).findings] == ["dead_reward"]


def test_damaged_files_are_named_and_the_rest_is_checked(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    made.report()
    (tmp_path / "rollouts" / "step-000003.jsonl").write_text("{]\n")
    (tmp_path / "evals" / "quiz@30" / "summary.json").write_text("[" * 9999)
    result = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "step-000003.jsonl:1" in result.output and "quiz@30" in result.output


def test_the_command_ends_with_1_where_a_finding_is_stop_worthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = Made(tmp_path, "grpo")
    dead(made)
    made.report()
    with pytest.raises(SystemExit) as left:
        main(["check", str(tmp_path), "--json"])
    assert left.value.code == 1
    told = json.loads(capsys.readouterr().out)["reports"][0]["findings"]
    assert told[0]["title"].startswith("The reward is dead: 0 for every response")


def test_the_jobs_of_a_sweep_are_checked_each(tmp_path: Path):
    write_json(tmp_path / "sweep.json", {})
    for name in ("a-seed0", "b-seed0"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        Made(folder, "sft").report()
    result = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "a-seed0: " in result.output and "b-seed0: " in result.output


def test_what_follows_from_a_collapse_is_noted_only(tmp_path: Path):
    made = Made(tmp_path, "grpo")
    collapsed(made)
    cut(made)
    report = made.report()
    assert [finding.check for finding in report.alarms] == ["collapse"]
    assert "truncated" in {finding.check for finding in report.findings}
