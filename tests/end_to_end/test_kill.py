"""kill -9 at random moments, then `align run --resume`: the same metrics as a run that
nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from alignkit.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 10
TASK = "data: {train: {dataset: arithmetic, size: 512}, prompt: arithmetic}"
EXPERT_ITERATION = f"""\
method: expert_iteration
model: {{path: stage:sft}}
{TASK}
rewards: {{drgrpo: {{}}}}
generation: {{max_new_tokens: 12, stop: ["</answer>"]}}
expert_iteration: {{iterations: 2, questions: 64, rollouts: 4}}
train: {{per_device_train_batch_size: 4, learning_rate: 1.0e-3, save_steps: 1}}
evals: {{arithmetic: {{before: true, limit: 50}}}}
"""
PIPELINE = f"""\
name: small
method: pipeline
seed: 1
stages:
  sft:
    method: sft
    model: {{build: {{tokenizer: digits, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, max_length: 64}}}}
    {TASK}
    train: {{max_steps: 60, per_device_train_batch_size: 16, learning_rate: 1.0e-2, save_steps: 8, logging_steps: 1}}
    evals: {{arithmetic: {{before: true, every: 20, limit: 50}}}}
  expert_iteration:
    {EXPERT_ITERATION.strip().replace(chr(10), chr(10) + "    ")}
  grpo:
    method: grpo
    model: {{path: stage:expert_iteration}}
    {TASK}
    rewards: {{drgrpo: {{}}}}
    loss: {{name: reinforce_with_baseline, normalize: sequence}}
    advantage: {{name: group, scale: std}}
    generation: {{max_new_tokens: 12, stop: ["</answer>"]}}
    train: {{max_steps: 8, per_device_train_batch_size: 32, num_generations: 4, beta: 0.0, save_steps: 2}}
    evals: {{arithmetic: {{every: 3, limit: 50}}}}
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "alignkit.cli", "run", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(*arguments):
    """Seconds of an undisturbed run."""
    began = time.monotonic()
    process = start(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return time.monotonic() - began


def kill(process, whole):
    """kill -9, of everything at once or of the first process alone; what it started
    must then end by itself.
    """
    family = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []


def disturbed(file, folder, kills, seconds, draw):
    """Run a recipe, killed so many times, each time a random while after its start; the
    last one is left alone.

    `seconds` is what the whole takes. The waits are short, so that many kills fall into
    one run, and long enough to get on between them: starting alone takes some seconds.
    """
    done = 0
    while done < kills:
        begun = (folder / "recipe.yaml").is_file()
        process = start(
            *(["--resume", folder] if begun else [file, "--folder", folder])
        )
        try:
            code = process.wait(timeout=draw.uniform(0.1, 1.0) * max(seconds / 9, 9))
        except subprocess.TimeoutExpired:
            kill(process, whole=done % 2 == 0)
            done += 1
            # killed before its first files were there
            if not (folder / "recipe.yaml").is_file() and folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
            continue
        assert code == 0, process.stderr.read().decode()
        break
    if not (folder / "recipe.yaml").is_file():
        finish(file, "--folder", folder)
    elif Run.open(folder).status != "done":
        finish("--resume", folder)
    return done


def outcome(folder):
    """All that a run and the runs inside it logged and evaluated, but for times."""
    found = {}
    for manifest in sorted(folder.rglob("manifest.json")):
        one = Run.open(manifest.parent)
        assert one.status == "done"
        rows = [
            {
                key: value
                for key, value in row.items()
                if "time" not in key and "second" not in key
            }
            for row in one.metrics()
        ]
        summaries = {
            path.parent.name: json.loads(path.read_text())["value"]
            for path in sorted(one.folder.glob("evals/*/summary.json"))
        }
        found[str(one.folder.relative_to(folder))] = {"rows": rows, "evals": summaries}
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, run in expected.items():
        assert found[name]["evals"] == run["evals"], name
        assert [row["step"] for row in found[name]["rows"]] == [
            row["step"] for row in run["rows"]
        ], name
        for row, other in zip(found[name]["rows"], run["rows"], strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-6), (name, row["step"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished pipeline, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.yaml").write_text(PIPELINE)
    return folder / "run", finish(folder / "small.yaml", "--folder", folder / "run")


def test_a_killed_pipeline_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    expected, seconds = undisturbed
    kept = json.loads(
        (expected / "stages/expert_iteration/iterations/001/sampled.json").read_text()
    )["ei/kept"]
    assert kept > 0  # else nothing of the expert iteration would be tested
    (tmp_path / "small.yaml").write_text(PIPELINE)
    kills = disturbed(
        tmp_path / "small.yaml", tmp_path / "run", KILLS, seconds, random.Random(4)
    )
    assert kills >= 3  # a fast machine is done before the tenth
    assert_same(outcome(tmp_path / "run"), outcome(expected))


def test_a_killed_expert_iteration_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    sft = undisturbed[0] / "stages/sft"
    file = tmp_path / "ei.yaml"
    file.write_text(EXPERT_ITERATION.replace("stage:sft", str(sft)) + "seed: 3\n")
    seconds = finish(file, "--folder", tmp_path / "plain")
    kills = disturbed(file, tmp_path / "run", KILLS, seconds, random.Random(5))
    assert kills >= 3  # a fast machine is done before the tenth
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "plain"))


def test_a_run_whose_data_changed_is_not_resumed(tmp_path):
    rows = [
        {
            "question": "1+2+3+4=?",
            "truth": "10",
            "response": "</think> <answer>10</answer>",
        }
    ] * 8
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build = "{tokenizer: digits, hidden_size: 32, layers: 1, heads: 2, max_length: 64}"
    (tmp_path / "r.yaml").write_text(
        f"method: sft\nmodel: {{build: {build}}}\ndata: {{train: {{dataset: jsonl,"
        " path: rows.jsonl}, prompt: arithmetic}\ntrain: {max_steps: 2}\n"
    )
    finish(tmp_path / "r.yaml", "--folder", tmp_path / "run")
    manifest = tmp_path / "run/manifest.json"
    manifest.write_text(manifest.read_text().replace('"done"', '"interrupted"'))
    data.write_text(data.read_text() * 2)
    process = start("--resume", tmp_path / "run")
    _, errors = process.communicate()
    assert (
        process.returncode == 2 and "other data, plugins or versions" in errors.decode()
    )
