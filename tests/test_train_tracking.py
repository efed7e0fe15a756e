"""Trackers get our names, stay offline without a key, and cannot fail a run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from made_runs import GROUPS, SIZE, STEPS, Made
from transformers import TrainerCallback

from alignkit.cli import cli
from alignkit.train.direct import track_evals, tracked
from alignkit.train.tables import tables_of
from alignkit.train.tracking import Tracker

RECIPE = """
name: tracked
method: sft
model: {build: {tokenizer: digits, max_length: 64}}
data: {train: {dataset: arithmetic, split: train, size: 32}, prompt: arithmetic}
train: {max_steps: 2, per_device_train_batch_size: 8, save_strategy: "no"}
evals: {arithmetic: {limit: 4, before: true, every: 1}}
track: [wandb, tensorboard]
"""


class Broken(TrainerCallback):
    """A tracker whose server is gone."""

    calls = 0

    def on_log(self, args, state, control, logs=None, **rest):
        self.calls += 1
        raise ConnectionError("gone")


class Noted(TrainerCallback):
    def __init__(self):
        self.logs = {}
        self.ended = False

    def on_log(self, args, state, control, logs=None, **rest):
        self.logs |= logs

    def on_train_end(self, args, state, control, **rest):
        self.ended = True


def test_a_tracker_that_fails_is_turned_off_with_a_warning(caplog):
    inner = Broken()
    tracker = Tracker("wandb", inner, {})
    tracker.on_log(None, None, None, logs={"loss": 1.0})
    tracker.on_log(None, None, None, logs={"loss": 1.0})
    assert inner.calls == 1 and "tracker wandb failed" in caplog.text


def test_a_tracker_sees_the_names_of_metrics_jsonl():
    inner = Noted()
    tracker = Tracker("tensorboard", inner, {})
    tracker.on_log(None, None, None, logs={"completions/mean_length": 3.0, "loss": 1.0})
    tracker.evaluated(None, None, None, {"eval/math/accuracy": 0.5})
    assert inner.logs == {
        "response_length": 3.0,
        "loss": 1.0,
        "eval_math/accuracy": 0.5,
    }


HOSTILE = "<script>1</script> \x1b]0;x\x07 \u202eabc"


def test_the_tables_of_a_run_are_its_last_rollouts_and_its_findings(tmp_path: Path):
    run = Made(tmp_path / "run", "grpo")
    run.folder.mkdir()
    run.every(reward=0.0, status="unparsed", advantage=0.0, response=HOSTILE * 200)
    run.write()
    tables = tables_of(run.folder)
    columns, rows = tables["rollouts"]
    assert len(rows) == GROUPS * SIZE and {row[0] for row in rows} == {STEPS}
    response = rows[0][columns.index("response")]
    assert len(response) < 2500 and not {"\x1b", "\x07", "\u202e"} & set(response)
    assert rows[0][columns.index("reward")] == 0.0
    columns, found = tables["findings"]
    assert "dead_reward" in {row[columns.index("check")] for row in found}


def test_a_run_without_rollouts_sends_no_empty_table(tmp_path: Path):
    run = Made(tmp_path / "run", "sft")
    run.folder.mkdir()
    run.write()
    assert "rollouts" not in tables_of(run.folder)


def test_tables_that_cannot_be_made_cost_no_run(tmp_path: Path, caplog):
    inner = Noted()
    tracker = Tracker("wandb", inner, {}, tmp_path / "nowhere")
    state = SimpleNamespace(is_world_process_zero=True)
    tracker.on_train_end(None, state, None)
    assert inner.ended and not tracker.failed
    assert "no tables for the trackers" in caplog.text


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No settings of trackers but those that a test makes."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "TENSORBOARD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    before = set(os.environ)
    yield
    import wandb

    wandb.teardown()  # it keeps the folder of its first run in the process
    for name in set(os.environ) - before:
        monkeypatch.delenv(name)


def test_what_has_no_trainer_is_one_run_of_its_trackers(tmp_path: Path, clean: None):
    run = Made(tmp_path / "run", "expert_iteration")
    run.folder.mkdir()
    run.write()
    track = ["wandb", "tensorboard"]
    with tracked(track, "n", "ei", {"seed": 1}, run.folder) as told:
        told(0, {"eval/math/accuracy": 0.1})
        told(1, {"ei/kept": 7, "eval/math/accuracy": 0.5})
    [offline] = (run.folder / "wandb").glob("offline-run-*")
    [written] = offline.glob("*.wandb")
    assert b"ei/kept" in written.read_bytes() and (offline / "files/media").is_dir()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [file] = (run.folder / "tensorboard").glob("events*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert [e.step for e in events.Scalars("eval/math/accuracy")] == [0, 1]


def test_a_tracker_that_cannot_begin_costs_no_iteration(tmp_path: Path, caplog):
    if importlib.util.find_spec("trackio"):
        pytest.skip("trackio is installed here")
    with tracked(["trackio"], "n", "ei", {}, tmp_path) as told:
        told(1, {"ei/kept": 7})
    assert caplog.text.count("tracker trackio failed") == 1


def test_evals_of_a_model_are_one_run_of_a_tracker(tmp_path: Path, clean: None):
    summary = {"eval": "m", "metric": "accuracy", "value": 0.5, "n": 8, "step": 3}
    summary |= {"low": 0.2, "high": 0.8, "provenance": {"model": "runs/a"}}
    other = {**summary, "eval": "open", "value": None, "low": None, "high": None}
    track_evals(["tensorboard"], [summary, other], tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [file] = (tmp_path / "tensorboard").glob("events*")
    events = EventAccumulator(str(file))
    events.Reload()
    [value] = events.Scalars("eval/m/accuracy")
    assert (value.step, value.value) == (3, 0.5)
    tags = set(events.Tags()["scalars"])
    assert {"eval/m/accuracy/low", "eval/open/accuracy/n"} <= tags
    assert "eval/open/accuracy" not in tags


@pytest.mark.slow
def test_wandb_without_a_key_is_offline_and_tensorboard_gets_the_evals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [n for n in os.environ if n.startswith(("WANDB_", "TENSORBOARD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    result = CliRunner().invoke(cli, ["run", "recipe.yaml"], catch_exceptions=False)
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
    assert result.exit_code == 0, result.output
    assert "wandb sync" in result.output
    (folder,) = (tmp_path / "runs").iterdir()
    [offline] = (folder / "wandb").glob("offline-run-*")
    [findings] = (offline / "files/media/table").glob("findings_*.table.json")
    assert "too few questions" in findings.read_text()  # of 4 questions
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = set()
    for file in (folder / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file))
        events.Reload()
        seen |= set(events.Tags()["scalars"])
    assert {"train/loss", "eval/arithmetic/accuracy"} <= seen
