"""A full standard output, and a limit of memory: one line, in processes of their own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from test_damaged_folders import write_run

ALIGN = [sys.executable, "-c", "from alignkit.cli import main; main()"]
ROW = {"question": "1+1?", "truth": "2", "response": "2", "prompt": "1+1", "tokens": 1}
WITH_JSON = [
    ["check", "run"],
    ["compare", "run", "run"],
    ["data", "filter", "rows.jsonl", "--out", "f.jsonl"],
    ["data", "show", "recipe.yaml"],
    ["data", "split", "rows.jsonl", "--out", "parts", "--validation", "1"],
    ["data", "stats", "recipe.yaml"],
    ["diff", "run", "recipe.yaml"],
    ["doctor"],
    ["eval", "math", "--responses", "rows.jsonl", "--out", "evals"],
    ["grade", "rows.jsonl", "--reward", "exact_match"],
    ["plan", "recipe.yaml"],
    ["plugins", "list"],
    ["plugins", "show", "exact_match"],
    ["show", "run"],
    ["show", "run", "--eval", "math@2"],
]
BIG = {"tokenizer": "bytes", "max_length": 256, "hidden_size": 2048, "layers": 8}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{**ROW, "question": f"1+{i}?"} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    write_run(tmp_path / "run")
    recipe = {
        "name": "tiny",
        "method": "sft",
        "model": {"build": {"tokenizer": "bytes", "max_length": 256}},
        "data": {
            "train": {"dataset": "jsonl", "path": "rows.jsonl"},
            "prompt": "question_only",
        },
        "train": {"max_steps": 1, "per_device_train_batch_size": 2},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (tmp_path / "big.yaml").write_text(json.dumps({**recipe, "model": {"build": BIG}}))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", WITH_JSON, ids=lambda c: " ".join(c[:3]))
def test_json_into_a_full_device_is_one_line(command, folder):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*ALIGN, *command, "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [1.0, 4.5])
def test_training_under_a_limit_of_memory_ends_in_one_line(gigabytes, folder):
    bytes_ = int(gigabytes * 1e9)
    done = subprocess.run(
        [*ALIGN, "run", "big.yaml", "--folder", "runs/big"],
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_)),
    )
    assert done.returncode == 3, done.stderr[-2000:]
    assert "out of memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr + done.stdout
