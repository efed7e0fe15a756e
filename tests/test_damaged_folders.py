"""A damaged run folder is one clear error that names the file, in every command that
reads it.
"""

import json
import shutil
import time

import pytest
from click.testing import CliRunner

from alignkit.cli import cli
from alignkit.errors import AlignError

DAMAGES = {
    "empty": lambda text: b"",
    "cut": lambda text: text[: len(text) // 2],
    "deep": lambda text: b"[" * 200_000,
    "deep object": lambda text: b'{"a":' * 100_000,
    "a list": lambda text: b"[]\n",
    "null": lambda text: b"null\n",
    "binary": lambda text: bytes(range(256)) * 9,
    "5,000 digits": lambda text: b'{"step": ' + b"9" * 5000 + b"}\n",
    "400 digits": lambda text: text.replace(b": 0.", b": " + b"7" * 400 + b"."),
    "400 digits whole": lambda text: text.replace(b": 1", b": " + b"7" * 400),
    "NaN": lambda text: text.replace(b": 0.", b': NaN, "x": 0.'),
    "texts": lambda text: text.replace(b": 0.", b': "a", "x": 0.'),
    "a folder": None,
    "gone": None,
}
COMMANDS = [
    ["compare", "RUN", "--json"],
    ["diff", "RUN", "RUN", "--json"],
    ["show", "RUN", "--json"],
    ["check", "RUN", "--json"],
    ["run", "--resume", "RUN"],
    ["eval", "arithmetic", "--model", "RUN"],
]


def write_run(folder):
    """A finished run, as small as one is."""
    folder.mkdir()
    recipe = {
        "name": "made",
        "method": "grpo",
        "seed": 0,
        "model": {"path": "nobody/nothing"},
        "data": {"train": {"dataset": "arithmetic"}, "prompt": "r1_zero"},
        "rewards": {"drgrpo": {}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    manifest = {"name": "made", "status": "done", "seed": 0, "versions": {"trl": "1"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    metrics = [{"step": s, "seconds": 1.0 * s, "train/reward": 0.5} for s in (1, 2)]
    lines = "".join(json.dumps(row) + "\n" for row in metrics)
    (folder / "metrics.jsonl").write_text(lines)
    home = folder / "evals" / "math@2"
    home.mkdir(parents=True)
    summary = {
        "eval": "math",
        "n": 2,
        "metric": "accuracy",
        "value": 0.5,
        "low": 0.1,
        "high": 0.9,
        "metrics": {"accuracy": 0.5},
        "status": {"ok": 1, "wrong": 1},
        "provenance": {"model": "m"},
    }
    (home / "summary.json").write_text(json.dumps(summary))
    rows = [
        {"id": str(i), "reward": 0.5, "status": "ok", "response": "x", "prompt": "p"}
        for i in range(2)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (home / "samples.jsonl").write_text(lines)
    return folder


def damage(path, kind):
    change = DAMAGES[kind]
    text = path.read_bytes()
    if change is not None:
        path.write_bytes(change(text))
        return
    path.unlink()
    if kind == "a folder":
        path.mkdir()


def one_line(command):
    """Left with 0, 2 or 3 and, where it failed, one short line for each problem."""
    started = time.monotonic()
    result = CliRunner().invoke(cli, command)
    error = result.exception
    if isinstance(error, AlignError):
        assert error.exit_code in (2, 3), error
        assert len(str(error)) < 4000
    else:
        assert error is None or isinstance(error, SystemExit), repr(error)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_damaged_folder_is_one_clear_error(command, tmp_path):
    whole = write_run(tmp_path / "whole")
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    faults = []
    for file in files:
        for kind in DAMAGES:
            run = tmp_path / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            damage(run / file, kind)
            try:
                one_line([str(run) if word == "RUN" else word for word in command])
            except AssertionError as error:
                faults.append(f"{file} {kind}: {str(error)[:300]}")
    assert faults == []


@pytest.mark.parametrize("command", COMMANDS[:4], ids=lambda c: c[0])
def test_the_folder_that_is_damaged_is_read_when_it_is_whole(command, tmp_path):
    run = str(write_run(tmp_path / "run"))
    words = [run if word == "RUN" else word for word in command]
    result = CliRunner().invoke(cli, words)
    assert not isinstance(result.exception, AlignError), result.exception
