"""What a kit's callbacks are told of a run, and when its evals run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit.cli import cli
from alignkit.train.watchers import Watchers
from alignkit.types import Callback, RunInfo

RECIPE = """
name: watched
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 4, per_device_train_batch_size: 4, save_strategy: "no"}
evals:
  arithmetic: {before: true, every: 2, after: true, limit: 4, sampling: {max_new_tokens: 4}}
callbacks: [diary]
"""
DIARY = """
import json

from alignkit import Callback, hookimpl


def write(info, *event):
    with (info.folder / "diary.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\\n")


def finished(info, status):
    manifest = json.loads((info.folder / "manifest.json").read_text())
    write(info, "finished", status, manifest["status"])


@hookimpl
def align_callbacks():
    yield Callback(
        name="diary",
        run_started=lambda info: write(info, "started", info.name),
        step_logged=lambda info, step, row: write(info, "step", step),
        eval_finished=lambda info, name, s: write(info, "eval", name, s["step"]),
        run_finished=finished,
    )
"""


def run(home: Path, *sets: str) -> tuple[int, list]:
    """Exit code of a run with the diary, and what is in it."""
    (home / "kit" / "plugins").mkdir(parents=True)
    (home / "kit" / "plugins" / "diary.py").write_text(DIARY)
    (home / "watched.yaml").write_text(RECIPE)
    command = ["run", str(home / "watched.yaml"), "--kit", str(home / "kit")]
    command += ["--folder", str(home / "run")]
    result = CliRunner().invoke(
        cli, [*command, *(part for one in sets for part in ("--set", one))]
    )
    diary = (home / "run" / "diary.jsonl").read_text().splitlines()
    return result.exit_code, [json.loads(line) for line in diary]


def test_a_diary_of_a_run_has_every_event_in_its_order(tmp_path):
    code, diary = run(tmp_path)
    assert code == 0
    assert [entry[1] for entry in diary if entry[0] == "step"] == [1, 2, 3, 4]
    assert [entry for entry in diary if entry[0] != "step"] == [
        ["started", "watched"],
        ["eval", "arithmetic", 0],
        ["eval", "arithmetic", 2],
        ["eval", "arithmetic", 4],
        ["finished", "done", "done"],
    ]


def test_a_failed_run_ends_its_diary_with_that(tmp_path):
    code, diary = run(tmp_path, "best={metric: eval/arithmetic/nothing}")
    assert code != 0
    assert diary[-1] == ["finished", "failed", "failed"]


def test_a_callback_that_leaves_an_event_out_hears_nothing_of_it(tmp_path):
    heard = []
    info = RunInfo("watched", tmp_path, {})
    callbacks = [
        Callback(name="deaf"),
        Callback(name="end", run_finished=lambda *told: heard.append(told)),
    ]
    watchers = Watchers(info, callbacks)
    watchers.run_started()
    watchers.step_logged(1, {})
    watchers.eval_finished("math", {})
    assert heard == []
    watchers.run_finished("done")
    assert heard == [(info, "done")]


@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ("{before: true, after: false}", [0]),
        ("{after: true}", [4]),
        ("{every: 3, after: false}", [3]),
        ("{every: 4, after: true}", [4]),
    ],
)
def test_an_eval_runs_when_the_recipe_says(tmp_path, when, steps):
    stated = when.removesuffix("}") + ", limit: 2, sampling: {max_new_tokens: 2}}"
    code, diary = run(tmp_path, "evals=~", f"evals.arithmetic={stated}")
    assert code == 0
    assert [entry[2] for entry in diary if entry[0] == "eval"] == steps
