"""How often a run reads its data: rows to train on once per process, an eval's once."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny_data
from commands import opened_files

GRPO = """\
method: grpo
model: {build: {tokenizer: bytes, hidden_size: 16, layers: 1, heads: 1, max_length: 4096}}
data: {train: {dataset: math, split: train, limit: 16}, prompt: r1_zero}
rewards: {drgrpo: {}}
generation: {max_new_tokens: 8, stop: ["</answer>"]}
train:
  max_steps: 3
  num_generations: 4
  per_device_train_batch_size: 4
  beta: 0.0
  save_strategy: "no"
evals:
  math: {before: true, every: 1, limit: 4, sampling: {max_new_tokens: 8}}
"""


@pytest.fixture
def count(tmp_path, monkeypatch):
    """How often a run of this recipe opened each data file, in each process."""

    def count(recipe):
        data = tiny_data.write(tmp_path / "data")
        monkeypatch.setenv("ALIGN_DATA", str(data))
        file = tmp_path / "counted.yaml"
        file.write_text(recipe)
        command = ("run", file, "--folder", tmp_path / "run")
        return Counter(opened_files(*command, cwd=tmp_path, under=data))

    return count


def by_file(counts):
    totals = Counter()
    for (_, name), times in counts.items():
        totals[name] += times
    return totals


@pytest.mark.slow
def test_training_rows_are_loaded_once_per_process_and_an_evals_once_per_run(count):
    counts = count(GRPO)
    times = [n for (_, name), n in counts.items() if name == "math_train7500.jsonl"]
    assert set(times) == {1}
    assert by_file(counts)["math_test5k.jsonl"] == 1
