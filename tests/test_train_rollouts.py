"""The rollouts of GRPO and RLOO say what the trainer trained on."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from commands import align

from alignkit.cli import cli
from alignkit.run import Run, read_rows

RECIPE = """
name: watched
method: {method}
model: {{build: {{tokenizer: digits, layers: 1, hidden_size: 32, max_length: 64}}}}
data:
  train: {{dataset: arithmetic, split: train, size: 16}}
  validation: {{dataset: arithmetic, split: test, limit: 2}}
  prompt: arithmetic
rewards: {{drgrpo: {{}}, parity: {{weight: 0.5}}}}
loss: {{name: spy, spied: {spied}}}
advantage: {{name: {advantage}}}
generation: {{engine: transformers, max_new_tokens: 4, stop: ["7"]}}
train:
  max_steps: 2
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  steps_per_generation: {per_generation}
  num_generations: 4
  beta: {beta}
  mask_truncated_completions: {masked}
  eval_strategy: steps
  eval_steps: 2
  per_device_eval_batch_size: 4
  save_strategy: "no"
launch: {{processes: {processes}}}
"""
SPY = '''
import json
import os
from pathlib import Path

from alignkit import Loss, Reward, hookimpl


def parity(responses):
    """Nearly always different within a group."""
    return [sum(map(ord, response)) % 7 / 7 for response in responses]


def spy(batch, *, spied: str):
    """-A r per token, and what it saw of each row."""
    with (Path(spied) / f"{os.getpid()}.jsonl").open("a") as file:
        for row in range(len(batch.mask)):
            mask = batch.mask[row]
            seen = [
                float(batch.advantages[row]),
                float(batch.old_logps[row][mask].mean()),
                float(batch.entropies[row][mask].mean()),
                int(mask.sum()),
                bool(batch.logps.requires_grad),
            ]
            file.write(json.dumps(seen) + "\\n")
    return -batch.advantages.unsqueeze(1) * (batch.logps - batch.old_logps).exp()


@hookimpl
def align_losses():
    yield Loss("spy", spy, methods=("grpo", "rloo"))


@hookimpl
def align_rewards():
    yield Reward("parity", parity)
'''


def train(home: Path, method: str, processes: int = 1, **settings) -> tuple[Path, list]:
    """Train two steps in `home`: the run folder, and what the loss saw in training."""
    for name in ("kit/plugins", "kit/rewards", "spied"):
        (home / name).mkdir(parents=True)
    (home / "kit" / "plugins" / "spy.py").write_text(SPY)
    words = {"advantage": "group", "per_generation": 2, "beta": 0.0, "masked": False}
    words |= settings
    text = RECIPE.format(
        method=method, spied=home / "spied", processes=processes, **words
    )
    recipe = home / "watched.yaml"
    recipe.write_text(text)
    folder = home / "run"
    command = ["run", str(recipe), "--kit", str(home / "kit"), "--folder", str(folder)]
    if processes > 1:
        align(*command, cwd=home)
    else:
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    seen = [
        json.loads(line)
        for file in (home / "spied").iterdir()
        for line in file.read_text().splitlines()
    ]
    return folder, [row for row in seen if row[-1]]


CASES = {
    "grpo": {"method": "grpo"},
    "grpo off policy": {"method": "grpo", "per_generation": 4},
    "rloo": {"method": "rloo", "beta": 0.1, "advantage": "leave_one_out"},
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """The name of a case, its run folder, and what the loss saw."""
    return request.param, *train(
        tmp_path_factory.mktemp("trained"), **CASES[request.param]
    )


def rollouts(folder: Path, kind: str = "step") -> list:
    files = sorted((folder / "rollouts").glob(f"{kind}-*.jsonl"))
    return [row for file in files for row in read_rows(file)]


def rounded(*numbers: float | None) -> tuple:
    return tuple(None if n is None else round(n, 4) for n in numbers)


def check_groups(rows: list, size: int = 4) -> None:
    groups = defaultdict(list)
    for row in rows:
        groups[row["step"], row["group"]].append(row)
    for members in groups.values():
        assert sorted(row["sample"] for row in members) == list(range(size))
        assert len({row["prompt"] for row in members}) == 1
        assert len({row["source"]["index"] for row in members}) == 1
    for step in {step for step, _ in groups}:
        numbers = sorted(group for at, group in groups if at == step)
        assert numbers == list(range(len(numbers)))


def check_signs(rows: list, size: int = 4) -> None:
    """An advantage is positive where the reward is above the mean of its group."""
    totals: Counter = Counter()
    for row in rows:
        totals[row["step"], row["group"]] += row["reward"] / size
    for row in rows:
        above = row["reward"] > totals[row["step"], row["group"]] + 1e-6
        assert (row["advantage"] > 1e-6) == above


def test_the_advantage_of_a_rollout_is_the_one_it_was_trained_with(case):
    name, folder, seen = case
    rows = rollouts(folder)
    # off-policy, one batch is trained on for both steps
    assert len(rows) == len(seen) == 2 * 8
    assert Counter(rounded(row["advantage"], row["tokens"]) for row in rows) == Counter(
        rounded(advantage, tokens) for advantage, _, _, tokens, _ in seen
    )
    assert any(row["advantage"] for row in rows)
    if name != "rloo":  # whose advantage has the KL in it
        check_signs(rows)


def test_groups_are_those_of_a_prompt(case):
    check_groups(rollouts(case[1]))


def test_a_rollout_ends_by_eos_by_a_stop_string_or_by_its_length(case):
    rows = rollouts(case[1])
    for row in rows:
        ended = row["tokens"] < 4 or "7" in row["response"]
        assert row["finish_reason"] == "stop" or not ended, row
        if row["finish_reason"] == "length":
            assert row["tokens"] == 4 and "7" not in row["response"]
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_what_neither_eos_nor_a_stop_string_ends_is_left_out(tmp_path, method):
    folder, seen = train(tmp_path, method, masked=True)
    trained = Counter(tokens for *_, tokens, _ in seen)
    rows = rollouts(folder)
    ended = [row["tokens"] if row["finish_reason"] == "stop" else 0 for row in rows]
    assert trained == Counter(ended)
    assert 0 in ended and max(ended) > 0


def test_log_probs_and_entropies_are_those_of_the_policy_that_sampled(case):
    name, folder, seen = case
    rows = rollouts(folder)
    if name == "grpo":  # on-policy TRL computes none before the loss
        assert {row["mean_logprob"] for row in rows} == {None}
        assert {row["mean_entropy"] for row in rows} == {None}
        return
    assert Counter(
        rounded(row["advantage"], row["mean_logprob"]) for row in rows
    ) == Counter(rounded(advantage, logp) for advantage, logp, *_ in seen)
    assert all(0 < row["mean_entropy"] < math.log(64) for row in rows)
    if name == "rloo":  # trained on by the very policy that sampled
        assert sorted(rounded(*(row["mean_entropy"] for row in rows))) == sorted(
            rounded(*(entropy for _, _, entropy, *_ in seen))
        )


def test_a_rollout_names_its_row_its_rewards_and_its_seconds(case):
    for row in rollouts(case[1]):
        parts = row["rewards"]
        assert row["reward"] == pytest.approx(
            parts["drgrpo"]["reward"] + 0.5 * parts["parity"]["reward"]
        )
        assert row["source"]["file"] == "arithmetic" and row["seconds"] > 0
        assert str(row["metadata"]["question"]) in row["prompt"]


def test_rollouts_of_the_validation_have_groups_of_their_own(case):
    rows = rollouts(case[1], "validation")
    assert [row["group"] for row in rows] == [0] * 4 + [1] * 4
    assert {row["step"] for row in rows} == {2}
    check_groups(rows)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_two_processes_write_what_each_has_trained_on(tmp_path, method):
    folder, seen = train(tmp_path, method, processes=2)
    rows = rollouts(folder)
    assert {file.name for file in (folder / "rollouts").glob("step-*")} == {
        f"step-00000{step}{own}.jsonl" for step in (1, 2) for own in ("", ".1")
    }
    assert len(rows) == len(seen) == 2 * 16
    assert Counter(rounded(row["advantage"], row["tokens"]) for row in rows) == Counter(
        rounded(advantage, tokens) for advantage, _, _, tokens, _ in seen
    )
    check_groups(rows)
    assert not (folder / ".lock").exists()


WAITING = """
import time
from pathlib import Path

from alignkit import Reward, hookimpl


def waiting(responses):
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.1)
    return [1.0 for _ in responses]


@hookimpl
def align_rewards():
    yield Reward("waiting", waiting)
"""


@pytest.mark.slow
def test_the_processes_of_a_run_end_with_the_first_and_leave_it_free(tmp_path):
    rewards = tmp_path / "kit" / "rewards"
    rewards.mkdir(parents=True)
    (rewards / "waiting.py").write_text(WAITING)
    text = RECIPE.format(
        method="grpo",
        spied="",
        processes=2,
        per_generation=2,
        beta=0.0,
        advantage="group",
        masked=False,
    )
    text = text.replace("name: spy, spied: ", "name: reinforce_with_baseline")
    text = text.replace("drgrpo: {}, parity: {weight: 0.5}", "waiting: {deadline: 300}")
    (tmp_path / "r.yaml").write_text(text)
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "alignkit.cli", "run", str(tmp_path / "r.yaml")]
    command += ["--kit", str(tmp_path / "kit"), "--folder", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    family = []
    try:
        while not list(folder.glob("log.txt")):
            assert process.poll() is None
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(family, timeout=120)  # though the reward waits
        assert left == []
        assert Run.open(folder).status == "died"
        Run.reopen(folder).release()
    finally:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
