"""Evals of a run on the model in training, and the best model."""

import json
from pathlib import Path

from click.testing import CliRunner, Result
from safetensors.torch import load_file

from alignkit.cli import cli

RECIPE = """
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 4, per_device_train_batch_size: 4, learning_rate: 1.0e-2, save_strategy: "no"}
evals: {arithmetic: {before: true, every: 1, after: true, limit: 8, sampling: {temperature: 1.0, max_new_tokens: 16}}}
"""


def run(folder: Path, best: str) -> Result:
    (folder / "watched.yaml").write_text(RECIPE + f"best: {best}\n")
    return CliRunner().invoke(
        cli, ["run", str(folder / "watched.yaml"), "--folder", str(folder / "run")]
    )


def test_the_best_model_is_the_one_of_the_best_logged_value(tmp_path: Path):
    metric = "eval/arithmetic/mean_tokens"
    assert run(tmp_path, f"{{metric: {metric}, mode: min}}").exit_code == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    values = {row["step"]: row[metric] for row in rows if metric in row}
    best = json.loads((tmp_path / "run/manifest.json").read_text())["best"]
    assert (
        best["value"]
        == values[best["step"]]
        == min(values.values())
        < max(values.values())
    )
    kept, last = (
        load_file(tmp_path / "run" / name / "model.safetensors")
        for name in ("best", "model")
    )
    assert kept.keys() == last.keys()
    assert all(bool((kept[key] == last[key]).all()) for key in kept) == (
        best["step"] == 4
    )
    assert not (tmp_path / "run/best.new").exists()


def test_a_best_metric_that_its_eval_does_not_give_stops_the_run_before_training(
    tmp_path: Path,
):
    result = run(tmp_path, "{metric: eval/arithmetic/acc}")
    assert result.exit_code != 0
    said = str(result.exception)
    assert (
        "best.metric is 'eval/arithmetic/acc'" in said
        and "eval/arithmetic/accuracy" in said
    )
    assert "train/loss" not in (tmp_path / "run/metrics.jsonl").read_text()
