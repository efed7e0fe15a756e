"""Grading workers killed at random moments of a GRPO run: no step, no sample and no
verdict is lost.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from alignkit.run import Run, read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 80
RECIPE = f"""\
name: killed
method: grpo
seed: 1
model: {{build: {{tokenizer: digits, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, max_length: 64}}}}
data: {{train: {{dataset: arithmetic, size: 512}}, prompt: arithmetic}}
rewards: {{drgrpo: {{}}, length_penalty: {{target: 2, buffer: 4, weight: 0.1}}}}
generation: {{max_new_tokens: 12, stop: ["</answer>"]}}
train: {{max_steps: {STEPS}, per_device_train_batch_size: 32, num_generations: 4, beta: 0.0, save_strategy: "no"}}
"""


def run(folder: Path, kill: bool) -> tuple[list[dict], int]:
    """The rollouts of a run, and how many workers were killed in it."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "alignkit.cli",
        "run",
        "recipe.yaml",
        "--folder",
        "run",
    ]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    chance, kills = random.Random(0), 0
    while process.poll() is None:
        time.sleep(chance.uniform(0.5, 2.0))
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            workers = [
                child
                for child in family
                if any("grading.worker" in part for part in child.cmdline())
            ]
            if kill and workers:
                chance.choice(workers).kill()
                kills += 1
    errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert [
        row["step"] for row in Run.open(folder / "run").metrics() if "train/loss" in row
    ][-1] == STEPS
    files = sorted((folder / "run" / "rollouts").glob("step-*.jsonl"))
    return [row for file in files for row in read_jsonl(file)], kills


def test_killed_workers_cost_a_grpo_run_nothing(tmp_path: Path):
    calm, _ = run(tmp_path / "calm", kill=False)
    disturbed, kills = run(tmp_path / "disturbed", kill=True)
    assert kills >= 1  # how many depends on how fast the run is
    assert len(calm) == len(disturbed) == 32 * STEPS
    verdict = ["step", "response", "reward", "status", "parts"]
    assert [[row[k] for k in verdict] for row in disturbed] == [
        [row[k] for k in verdict] for row in calm
    ]
