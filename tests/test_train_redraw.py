"""Groups without variance are drawn again: whole, up to a limit, by the reward that
decides; what is thrown away counts in tokens and time and in no denominator.
"""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
import torch
import trl
from click.testing import CliRunner
from datasets import Dataset
from transformers import TrainerCallback

from alignkit import Reward, kits, models, plugins
from alignkit.cli import cli
from alignkit.conformance import laboratory as tiny
from alignkit.grading import Grader, bind
from alignkit.run import Run, read_rows
from alignkit.train.objective import Objective
from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer
from alignkit.train.rewards import Answers, RewardBoard

KINDS = {
    "grpo": (AlignGRPOTrainer, trl.GRPOConfig, trl.GRPOTrainer),
    "rloo": (AlignRLOOTrainer, trl.RLOOConfig, trl.RLOOTrainer),
}
# responses of the first group and of the second, of four; 1 where there is a 7
EQUAL, VARIED = ["12", "1", "3", "45"], ["7", "123", "57", "1"]
OTHER, RIGHT = ["2", "377", "2", "72"], ["7", "77", "71", "17"]


def seven(response: str) -> float:
    return float("7" in response)


def length(tokens: int) -> float:
    """A style by which even equal outcomes differ."""
    return -0.01 * tokens


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture
def trained(tmp_path, monkeypatch, registry):
    """What one step from these draws does: gradients, metrics, tokens seen, rollouts."""

    def run(method, draws, redraws, normalize=None):
        kind, config, base = KINDS[method]
        tokenizer = models.build_tokenizer("digits")
        torch.manual_seed(0)
        model = tiny.model(tokenizer).float()
        left = [list(batch) for batch in draws]

        def drawn(self, prompt_ids, *_):
            texts = left.pop(0)
            assert len(texts) == len(prompt_ids)
            ids = [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
            ids = [[*row, tokenizer.eos_token_id] for row in ids]
            return (ids, None) if method == "grpo" else ids

        monkeypatch.setattr(base, "_generate_single_turn", drawn)
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        questions = [{"question": "1+6", "truth": "7"}, {"question": "5", "truth": "5"}]
        answers = Answers(questions, {"dataset": "jsonl", "path": "q"})
        name = "grpo_clip" if method == "grpo" else "rloo"
        gradients = {}

        class Catch(TrainerCallback):
            def on_pre_optimizer_step(self, *_, **__):
                for key, weight in trainer.model.named_parameters():
                    gradients[key] = weight.grad.clone()

        with Grader(workers=1) as grader:
            rewards = [
                bind(Reward(f.__name__, f, where="process")) for f in (seven, length)
            ]
            written = Run.create(home, "board")
            board = RewardBoard(
                rewards, [1.0, 1.0], {}, "seven", grader, written, {"step": answers}
            )
            trainer = kind(
                model=model,
                args=config(
                    output_dir=str(home),
                    per_device_train_batch_size=8,
                    num_generations=4,
                    max_completion_length=10,
                    max_steps=1,
                    beta=0.0,
                    use_cpu=True,
                    bf16=False,
                    report_to=[],
                    save_strategy="no",
                    logging_steps=1,
                    disable_tqdm=True,
                    shuffle_dataset=False,
                    gradient_checkpointing=False,
                ),
                train_dataset=Dataset.from_list(
                    [{"prompt": f"{n}+1=", "row": n} for n in range(2)]
                ),
                processing_class=tokenizer,
                reward_funcs=board.functions,
                board=board,
                redraws=redraws,
                objective=Objective(
                    registry.get("loss", name).value,
                    normalize=normalize,
                    advantage=registry.get("advantage", "group").value,
                ),
            )
            trainer.add_callback(Catch())
            trainer.train()
        assert left == [], "each draw was asked for"
        (file,) = (written.folder / "rollouts").glob("*.jsonl")
        logged = trainer.state.log_history[0]
        return (
            gradients,
            logged,
            trainer.state.num_input_tokens_seen,
            [*read_rows(file)],
        )

    return run


CASES = [("grpo", n) for n in ("sequence", "constant", "token", "microbatch")]


@pytest.mark.parametrize(("method", "normalize"), [*CASES, ("rloo", None)])
def test_a_step_is_that_of_what_was_kept_as_if_drawn_at_once(
    trained, method, normalize
):
    again = trained(method, [EQUAL + VARIED, OTHER], 3, normalize)
    once = trained(method, [OTHER + VARIED], 0, normalize)
    assert any(gradient.abs().max() > 1e-4 for gradient in once[0].values())
    for name, gradient in once[0].items():
        torch.testing.assert_close(again[0][name], gradient)
    assert [row["response"] for row in again[3]] == OTHER + VARIED
    assert [row["reward"] for row in again[3]] == [row["reward"] for row in once[3]]
    costs = [row["rewards"]["length"]["reward"] for row in again[3]]
    assert costs == [-0.01 * (len(text) + 1) for text in OTHER + VARIED]


def test_what_was_thrown_away_counts_in_tokens_and_time(trained):
    again = trained("grpo", [EQUAL + VARIED, RIGHT, OTHER], 3)
    once = trained("grpo", [OTHER + VARIED], 0)
    thrown = sum(len(text) + 1 for text in EQUAL + RIGHT)
    assert again[1]["resampled_groups"] == 0.5
    assert again[1]["resampled_tokens"] == thrown
    assert again[1]["seconds/resampling"] > 0
    prompts = 2 * 4 * len("0+1=")
    assert again[2] - once[2] == thrown + prompts
    assert "resampled_groups" not in once[1]


@pytest.mark.parametrize("redraws", [1, 2])
def test_the_limit_keeps_what_came_last(trained, redraws):
    draws = [EQUAL + VARIED, *[EQUAL[::-1]] * redraws]
    gradients, logged, _, rows = trained("grpo", draws, redraws)
    assert [row["response"] for row in rows][:4] == EQUAL[::-1]
    assert logged["resampled_groups"] == 0.5
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_groups_with_variance_are_left_alone(trained):
    _, logged, _, rows = trained("grpo", [VARIED + OTHER], 4)
    assert [row["response"] for row in rows] == VARIED + OTHER
    assert logged["resampled_groups"] == logged["resampled_tokens"] == 0


RECIPE = """
name: redrawn
method: grpo
model: {{build: {{tokenizer: digits, layers: 1, hidden_size: 32, max_length: 64}}}}
data: {{train: {{dataset: arithmetic, split: train, size: 32}}, prompt: arithmetic}}
rewards: {{sevens: {{}}}}
loss: {{name: grpo_clip}}
advantage: {{name: group}}
generation: {{engine: transformers, max_new_tokens: 4, resample_equal_groups: {limit}}}
train:
  max_steps: 3
  per_device_train_batch_size: 8
  num_generations: 4
  save_strategy: "no"
  logging_steps: 1
"""
SEVENS = '''
from alignkit import Reward, hookimpl

def sevens(response):
    """Seldom 1."""
    return float("7" in response)

@hookimpl
def align_rewards():
    yield Reward("sevens", sevens)
'''


def test_a_run_trains_no_equal_group_and_says_what_that_cost(tmp_path):
    (tmp_path / "kit" / "rewards").mkdir(parents=True)
    (tmp_path / "kit" / "rewards" / "sevens.py").write_text(SEVENS)
    share = {}
    for limit in (0, 50):
        recipe = tmp_path / f"{limit}.yaml"
        recipe.write_text(RECIPE.format(limit=limit))
        folder = tmp_path / f"run{limit}"
        command = ["run", str(recipe), "--kit", str(tmp_path / "kit")]
        result = CliRunner().invoke(cli, [*command, "--folder", str(folder)])
        assert result.exit_code == 0, result.output
        groups = defaultdict(set)
        for file in (folder / "rollouts").glob("step-*.jsonl"):
            for row in read_rows(file):
                groups[row["step"], row["group"]].add(row["reward"])
        share[limit] = sum(len(seen) == 1 for seen in groups.values()) / len(groups)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        told = [row.get("train/resampled_groups") for row in metrics]
        assert any(told) == bool(limit)
    assert share[0] > 0 == share[50]
