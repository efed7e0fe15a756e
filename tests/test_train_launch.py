"""Several training processes of one run, as a user starts them."""

from __future__ import annotations

import json

import pytest
from commands import align

RECIPE = """
name: launched
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 2, per_device_train_batch_size: 2, save_strategy: "no"}
evals: {arithmetic: {limit: 4, sampling: {max_new_tokens: 4}}}
launch: {processes: 2}
callbacks: [diary]
"""
DIARY = """
import os

from alignkit import Callback, hookimpl


def started(info):
    print("started by rank", os.environ["RANK"], flush=True)


@hookimpl
def align_callbacks():
    yield Callback(name="diary", run_started=started)
"""
BROKEN = """
import os

from alignkit import Loss, hookimpl


def broken(batch):
    if os.environ.get("RANK") == "1":
        raise RuntimeError("the second one has had enough")
    return -batch.logps


@hookimpl
def align_losses():
    yield Loss("broken", broken, methods=("sft",))
"""


@pytest.fixture
def recipe(tmp_path):
    plugins = tmp_path / "kit" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "diary.py").write_text(DIARY)
    (plugins / "broken.py").write_text(BROKEN)
    file = tmp_path / "launched.yaml"
    file.write_text(RECIPE)
    return file


def run(recipe, *sets, check=0):
    home = recipe.parent
    command = ["run", recipe, "--kit", home / "kit", "--folder", home / "run"]
    command += [part for one in sets for part in ("--set", one)]
    done = align(*command, cwd=home, check=check)
    return done, json.loads((home / "run" / "manifest.json").read_text())


@pytest.mark.slow
def test_one_of_two_processes_writes_evaluates_and_tells(recipe):
    done, manifest = run(recipe)
    assert manifest["status"] == "done" and manifest["training"]["steps"] == 2
    assert done.out.count("started by rank") == 1
    assert done.out.count("run folder:") == 1
    rows = (recipe.parent / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows if "train/loss" in row]
    assert steps == [1, 2]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_run_with_its_message(recipe):
    done, manifest = run(recipe, "loss={name: broken}", check=1)
    assert manifest["status"] == "failed"
    assert "the second one has had enough" in done.err
    assert f"the log: {recipe.parent / 'run' / 'log.txt'}" in done.err
