"""An iteration of expert iteration that keeps nothing, and so trains nothing."""

from __future__ import annotations

import pytest
from commands import align

from alignkit.run import read_jsonl

RECIPE = """\
name: nothing
method: expert_iteration
model: {build: {tokenizer: digits, layers: 1, hidden_size: 32, max_length: 64}}
data: {train: {dataset: arithmetic, size: 50}, prompt: arithmetic}
rewards: {drgrpo: {}}
expert_iteration: {iterations: 2, questions: 2, rollouts: 1}
generation: {engine: transformers, max_new_tokens: 2}
evals: {arithmetic: {after: true, limit: 2}}
"""


@pytest.mark.slow
def test_the_evals_that_are_wanted_after_training_run_all_the_same(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    align("run", "r.yaml", "--folder", "run", cwd=tmp_path)
    folder = tmp_path / "run"
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["step"]]
    assert [row["ei/kept"] for row in rows] == [0, 0]
    assert all("eval/arithmetic/accuracy" in row for row in rows)
    assert sorted(path.name for path in (folder / "evals").iterdir()) == [
        "arithmetic@1",
        "arithmetic@2",
    ]
    for found in (folder / "evals").iterdir():
        assert len([*read_jsonl(found / "samples.jsonl")]) == 2
