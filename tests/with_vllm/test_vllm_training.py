"""Rollouts and in-training evals on TRL's colocated vLLM, with the sync of weights
proven.
"""

from __future__ import annotations

import json

import pytest
from commands import align

from alignkit import checks, records

GRPO = """
name: tiny_{method}
method: {method}
model: {{path: {model}{lora}}}
data: {{train: {{dataset: arithmetic, split: train, size: 400}}, prompt: arithmetic}}
rewards: {{drgrpo: {{}}}}
loss: {{name: trl}}
generation: {{engine: vllm, vllm: {{sync_tolerance: 0.005}}, max_new_tokens: 24, stop: ["</answer>"]{sampling}}}
train: {{max_steps: 5, per_device_train_batch_size: 16, num_generations: 4, learning_rate: 2.0e-3, beta: 0.0,
         save_strategy: "no"}}
evals: {{arithmetic: {{every: 2, before: true, after: true, limit: 100}}}}
"""
ROUNDING = 1e-4  # nats per token, float32


def run(trained, home, *, check=0, before="", method="grpo", lora="", sampling=""):
    recipe = home / "recipe.yaml"
    recipe.write_text(
        GRPO.format(model=trained, method=method, lora=lora, sampling=sampling)
    )
    done = align("run", recipe, cwd=home, check=check, before=before)
    (folder,) = (home / "runs").iterdir()
    metrics = folder / "metrics.jsonl"
    rows = (
        [json.loads(line) for line in metrics.read_text().splitlines()]
        if metrics.is_file()
        else []
    )
    return done, folder, rows


def differences(rows):
    return [
        row["train/sync_difference/mean"]
        for row in rows
        if "train/sync_difference/mean" in row
    ]


@pytest.fixture(scope="module")
def grpo(trained, tmp_path_factory):
    """A GRPO run of five steps; its evals before and in training put further syncs in
    between.
    """
    return run(trained, tmp_path_factory.mktemp("grpo"))


def test_five_steps_of_grpo_sample_from_the_current_weights(grpo):
    _, _, rows = grpo
    steps = [row for row in rows if "train/reward" in row]
    assert len(steps) == 5
    # The weights moved, and by far more than what the tolerance would let through ...
    assert sum(row["train/grad_norm"] for row in steps) > 0
    # ... but vLLM moved with them.
    assert differences(rows)
    assert max(differences(rows)) < ROUNDING


def test_no_check_accuses_a_healthy_run(grpo):
    _, folder, _ = grpo
    (record,) = records.read(folder)
    report = checks.examine(record)
    assert report.passed and report.alarms == []


def test_evals_in_training_are_answered_by_the_trainers_vllm_with_the_weights_of_that_step(
    grpo,
):
    _, folder, rows = grpo
    done = [row["step"] for row in rows if "eval/arithmetic/accuracy" in row]
    assert done == [0, 2, 4, 5]
    summary = json.loads(
        (folder / "evals" / "arithmetic@5" / "summary.json").read_text()
    )
    assert summary["provenance"]["engine"] == "vllm"
    # The saved model, loaded anew by transformers, gives the same answers.
    align("eval", "arithmetic", "--model", folder / "model", "--engine", "transformers", "--limit", 100, "--out",
          folder.parent.parent / "again", cwd=folder.parent.parent)  # fmt: skip
    (again,) = (folder.parent.parent / "again").rglob("samples.jsonl")
    assert responses(again) == responses(
        folder / "evals" / "arithmetic@5" / "samples.jsonl"
    )
    assert responses(again) != responses(
        folder / "evals" / "arithmetic@0" / "samples.jsonl"
    )


def responses(file):
    return {
        row["id"]: row["response"]
        for row in map(json.loads, file.read_text().splitlines())
    }


def test_rollouts_ended_by_a_stop_string_count_as_finished(grpo):
    _, folder, rows = grpo
    rollouts = [
        json.loads(line)
        for file in folder.glob("rollouts/*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert rollouts
    stopped = sum(row["response"].endswith("</answer>") for row in rollouts)
    assert sum(row["finish_reason"] == "stop" for row in rollouts) >= stopped
    assert stopped > 0.5 * len(rollouts)
    truncated = [row["train/truncated"] for row in rows if "train/truncated" in row]
    assert sum(truncated) / len(truncated) == pytest.approx(
        1 - stopped / len(rollouts), abs=0.05
    )


def test_a_run_whose_weights_do_not_arrive_stops_and_says_so(trained, tmp_path):
    sabotage = (
        "from alignkit.train.vllm import SyncedGeneration\n"
        "SyncedGeneration._iter_named_params = lambda self: ((n, w * 0.9) for n, w in ("
        "(n, p.data) for n, p in self.model.named_parameters()))"
    )
    done, folder, _ = run(trained, tmp_path, check=1, before=sabotage)
    assert "the rollouts do not come from the current weights" in done.err
    assert "Traceback" not in done.err
    assert json.loads((folder / "manifest.json").read_text())["status"] == "failed"


def test_weights_left_as_they_were_stop_the_run_once_the_trainers_have_moved(
    trained, tmp_path
):
    sabotage = (
        "from alignkit.train import vllm\nvllm.reload_weights = lambda llm,"
        " weights: [None for _ in weights]"
    )
    done, _, _ = run(trained, tmp_path, check=1, before=sabotage)
    assert "the weights of vLLM are not the trainer's" in done.err


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_lora_model_is_merged_into_vllm_under_truncated_sampling(
    trained, tmp_path, method
):
    lora = ", lora: {r: 4, alpha: 16, target_modules: all-linear}"
    _, _, rows = run(
        trained,
        tmp_path,
        method=method,
        lora=lora,
        sampling=", temperature: 0.8, top_p: 0.9, top_k: 8",
    )
    assert len([row for row in rows if "train/reward" in row]) == 5
    assert max(differences(rows)) < ROUNDING
