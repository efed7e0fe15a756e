"""`align grade RUN`: a whole run's rollouts under other graders, with the advantages that
these would have made, recomputed as the run made them.
"""

import json

import pytest
from click.testing import CliRunner

from alignkit.cli import cli

RECIPE = """
name: small
method: {METHOD}
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
rewards: {remainder: {by: 5, weight: 0.5}, letters: {decides: true}}
generation: {engine: transformers, max_new_tokens: 8}
train: {max_steps: 2, per_device_train_batch_size: 8, num_generations: 4, beta: {BETA}, save_strategy: "no"}
{MORE}
"""
KIT = """
from alignkit import Reward, hookimpl


def letters(response: str):
    return float(sum(map(ord, response)) % 2)


def remainder(response: str, *, by: int = 3):
    return float(sum(map(ord, response)) % by)


@hookimpl
def align_rewards():
    yield Reward("letters", letters)
    yield Reward("remainder", remainder)
"""


def graded(folder, method, more, beta=0.0):
    """The summary of a real short run of a recipe, graded anew."""
    text = RECIPE.replace("{METHOD}", method).replace("{BETA}", str(beta))
    kit = ["--kit", str(folder / "kit")]
    (folder / "kit/rewards").mkdir(parents=True)
    (folder / "kit/rewards/kinds.py").write_text(KIT)
    (folder / "small.yaml").write_text(text.replace("{MORE}", more))
    run = ["run", str(folder / "small.yaml"), "--folder", str(folder / "run"), *kit]
    done = CliRunner().invoke(cli, run)
    assert done.exit_code == 0, done.output
    asked = ["grade", str(folder / "run"), "--json"]
    asked += [*kit, "--reward", "letters", "--reward", "remainder", "--disagreements"]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("grpo", "loss: {name: grpo_clip}\nadvantage: {name: group}"),
        ("grpo", "loss: {name: grpo_clip}\nadvantage: {name: group, scale: none}"),
        ("grpo", "loss: {name: trl}"),
        ("rloo", "loss: {name: rloo}\nadvantage: {name: leave_one_out}"),
    ],
)
def test_advantages_come_again_from_the_stored_rewards(tmp_path, method, more):
    found = graded(tmp_path, method, more)
    assert found["rollouts"] == 16 and not found["no_advantages"]
    assert found["check"] < 1e-5
    lines = (tmp_path / "run/rollouts/step-000001.jsonl").open()
    assert any(json.loads(line)["advantage"] for line in lines)
    # both files go on where they stand
    kit = [
        "--kit",
        str(tmp_path / "kit"),
        "--reward",
        "letters",
        "--reward",
        "remainder",
    ]
    out = tmp_path / "graded.jsonl"
    asked = ["grade", str(tmp_path / "run"), *kit, "--out", str(out), "--label", "4"]
    for said in ("4 rows of", "16 rows were graded before"):
        done = CliRunner().invoke(cli, asked)
        assert done.exit_code == 0 and said in done.output, done.output
    assert len(out.read_text().splitlines()) == 16
    [first, *_] = map(json.loads, (tmp_path / "run/labels.jsonl").open())
    assert first["place"].startswith("step ") and first["label"] is None
    # the decider graded anew is the run's own reward: nothing would have changed
    for step in found["steps"]:
        assert step["letters"]["turned"] == 0
        assert step["letters"]["change"] < 1e-5
    assert any(step["remainder"]["change"] > 0.01 for step in found["steps"])
    assert found["differ"] == len(found["disagreements"]) > 0


def test_rloo_with_a_penalty_in_the_reward_says_that_it_cannot(tmp_path):
    found = graded(tmp_path, "rloo", "loss: {name: trl}", beta=0.1)
    assert "KL" in found["no_advantages"] and found["check"] is None
    assert "turned" not in found["steps"][0]["letters"]


def test_rollouts_of_0_1_that_name_no_step_are_graded(old_folder):
    folder = old_folder("expert_iteration")
    asked = ["grade", str(folder), "--reward", "exact_match", "--json"]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert done.exit_code == 0 and json.loads(done.stdout)["rollouts"] > 0
