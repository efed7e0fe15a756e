"""What a run records beside the training: validation apart from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignkit.cli import cli
from alignkit.run import Run
from alignkit.train.callbacks import (
    MetricsCallback,
    WholeRolloutsCallback,
)
from alignkit.train.resumed import tokens_spent
from alignkit.train.watchers import Watchers
from alignkit.types import RunInfo

GRPO = """
name: watched
method: grpo
model: {build: {tokenizer: digits, layers: 1, hidden_size: 32, max_length: 64}}
data:
  train: {dataset: arithmetic, split: train, size: 16}
  validation: {dataset: arithmetic, split: test, limit: 3}
  prompt: arithmetic
rewards: {drgrpo: {}}
generation: {engine: transformers, max_new_tokens: 4}
train:
  max_steps: 2
  per_device_train_batch_size: 4
  num_generations: 2
  eval_strategy: steps
  eval_steps: 1
  per_device_eval_batch_size: 2
  save_strategy: "no"
"""


def test_validation_is_logged_under_its_own_name_and_counts_no_tokens_anew(
    tmp_path: Path,
):
    run = Run.create(tmp_path, "watched")
    callback = MetricsCallback(run, Watchers(RunInfo("watched", run.folder, {}), ()))
    args, state = (
        TrainingArguments(str(tmp_path), use_cpu=True),
        TrainerState(global_step=3),
    )
    callback.on_log(args, state, None, logs={"loss": 1.0, "num_tokens": 24.0})
    callback.on_log(
        args,
        state,
        None,
        logs={"eval_loss": 2.0, "eval_num_tokens": 24.0, "eval_entropy": 0.5},
    )
    first, second = run.metrics()
    assert first["train/loss"] == 1.0 and "validation/loss" not in first
    assert second["validation/loss"] == 2.0 and second["validation/entropy"] == 0.5
    assert [first["tokens"], second["tokens"]] == [24, 24] and tokens_spent(run) == 24
    assert not any("eval_" in name or "num_tokens" in name for name in second)


@pytest.mark.slow
def test_rollouts_of_the_validation_are_kept_apart_from_those_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "watched.yaml").write_text(GRPO)
    result = CliRunner().invoke(
        cli, ["run", "watched.yaml", "--folder", "run"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    lines = {
        file.name: len(file.read_text().splitlines())
        for file in (tmp_path / "run" / "rollouts").iterdir()
    }
    assert lines == {
        "step-000001.jsonl": 4,
        "validation-000001.jsonl": 6,
        "step-000002.jsonl": 4,
        "validation-000002.jsonl": 6,
    }
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert {part: found["rows"] for part, found in manifest["rows"].items()} == {
        "train": 16,
        "validation": 3,
    }


@pytest.mark.parametrize(("iterations", "saved"), [(1, [4, 8, 9]), (2, [8, 9])])
def test_a_checkpoint_waits_for_the_end_of_a_rollout_batch(
    tmp_path: Path, iterations: int, saved: list[int]
):
    from trl import GRPOConfig

    args = GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_accumulation_steps=2,
        steps_per_generation=8,
        num_iterations=iterations,
    )
    callback, found = WholeRolloutsCallback(), []
    for step in range(1, 10):
        control = TrainerControl(should_save=step % 3 == 0)
        callback.on_step_end(
            args,
            TrainerState(global_step=step, max_steps=9),
            control,
            train_dataloader=range(32),
        )
        found += [step] if control.should_save else []
    assert found == saved


def test_a_rollout_batch_that_ends_with_a_short_optimizer_step_is_whole_there(
    tmp_path: Path,
):
    """Three microbatches per rollout batch and per epoch: optimizer steps of two, then
    of one.
    """
    from trl import GRPOConfig

    args = GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_accumulation_steps=2,
        steps_per_generation=3,
    )
    callback, found = WholeRolloutsCallback(), []
    for step in range(1, 8):
        control = TrainerControl(should_save=True)
        callback.on_step_end(
            args,
            TrainerState(global_step=step, max_steps=99),
            control,
            train_dataloader=range(3),
        )
        found += [step] if control.should_save else []
    assert found == [2, 4, 6]


EVALUATES = (
    "data.validation",
    "train.eval_steps",
    "train.per_device_eval_batch_size",
)


def test_settings_of_vllm_may_stand_where_auto_finds_no_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every setting of the section is there for the trainer to read, also where another
    engine generates.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "watched.yaml").write_text(GRPO)
    vllm = "{gpu_memory_utilization: 0.3, sync_tolerance: 0.2}"
    sets = [
        "generation.engine=auto",
        f"generation.vllm={vllm}",
        "train.max_steps=1",
        "train.eval_strategy=no",
    ]
    sets = [
        part
        for one in [*sets, *(f"{key}=~" for key in EVALUATES)]
        for part in ("--set", one)
    ]
    result = CliRunner().invoke(
        cli, ["run", "watched.yaml", "--folder", "run", *sets], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
