"""`align sweep` from the command line; the runs of the slow tests are real."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from alignkit.cli import main

SWEEP = """\
variants:
  sequence: {}
  constant: {loss: {normalize: constant, constant: 8}}
  token: {loss: {normalize: token}}
seeds: [0, 1, 2]
metric: eval/arithmetic/accuracy
"""


def align(*arguments):
    """The command in a process of its own, as real runs need it."""
    command = [sys.executable, "-m", "alignkit.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def here(capsys):
    """The command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code, *capsys.readouterr()

    return run


def test_a_dry_run_prints_what_differs_and_makes_nothing(here, sweep_file, tmp_path):
    code, out, _ = here(
        "sweep", sweep_file(SWEEP), "--dry-run", "--out", tmp_path / "runs"
    )
    assert code == 0 and "loss.normalize" in out and "sweep.yaml:4" in out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_as_json(here, tiny):
    _, out, _ = here(
        "sweep",
        tiny,
        "--set",
        "train.learning_rate=1e-6,1e-5",
        "--seeds",
        "2",
        "--dry-run",
        "--json",
    )
    found = json.loads(out)
    assert found["seeds"] == [0, 1]
    assert found["variants"]["learning_rate=1e-05"]["changes"] == {
        "train.learning_rate": [1e-4, 1e-5]
    }


def test_an_invalid_variant_starts_nothing(here, sweep_file, tmp_path):
    code, _, err = here(
        "sweep",
        sweep_file("variants: {a: {}, b: {train: {bad: 1}}}\n"),
        "--out",
        tmp_path / "runs",
    )
    assert code == 2 and "variant b" in err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--seeds", "x"], ["--resume", "here", "--seeds", "2"]]
)
def test_flags_that_make_no_sense_leave_with_2(here, arguments):
    assert here("sweep", *arguments)[0] == 2


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_sweep_given_as_a_recipe_is_told_apart(here, sweep_file, command):
    code, _, err = here(command, sweep_file("variants: {a: {}}\n"))
    assert code == 2 and "is a sweep, not a recipe" in err


@pytest.mark.parametrize(
    ("command", "given", "meant"),
    [
        ("plan", "grpo_maht.yaml", "grpo_math.yaml"),
        ("sweep", "mini.yaml", "overlays/mini.yaml"),
        ("sweep", "recipes/ablations/grpo_clp.yaml", "ablations/grpo_clip.yaml"),
    ],
)
def test_a_file_that_is_not_there_is_named_with_the_one_of_alignkit_that_was_meant(
    here, command, given, meant, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = here(command, given)
    assert (
        code == 2
        and f"there is no file {given}; did you mean 'recipes/{meant}'?" in err
    )


def test_a_diff_in_a_pipe_cuts_no_name_and_shows_no_control_character(
    here, tiny, tmp_path
):
    child = tmp_path / "child.yaml"
    child.write_text(
        f"extends: {tiny}\ndata: {{prompt: {{template:"
        ' "\\e[31m{question}"}}\nseed: 3\n'
    )
    code, out, _ = here("diff", child)
    assert code == 0 and "data.prompt" in out and "…" not in out and "\x1b" not in out


def started_runs(folder):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in folder.glob("runs/*/manifest.json")
    }


def kill_when(process, ready, *, children):
    """kill -9, of the sweep alone or with all it has started, once `ready()`."""
    end = time.monotonic() + 240
    while not ready() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.2)
    assert process.poll() is None, "the sweep ended before it could be killed"
    family = psutil.Process(process.pid).children(recursive=True) if children else []
    for member in [psutil.Process(process.pid), *family]:
        member.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_killed_twice_resumes_repeats_nothing_and_is_compared(
    sweep_file, tmp_path
):
    command = [sys.executable, "-m", "alignkit.cli", "sweep"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def done(count):
        folders = list((tmp_path / "runs").glob("sweep-*"))
        return (
            bool(folders)
            and sum(m["status"] == "done" for m in started_runs(folders[0]).values())
            >= count
        )

    first = subprocess.Popen(
        [
            *command,
            str(sweep_file(SWEEP)),
            "--jobs",
            "2",
            "--out",
            str(tmp_path / "runs"),
        ],
        **quiet,
    )
    kill_when(first, lambda: done(2), children=True)
    (folder,) = (tmp_path / "runs").glob("sweep-*")
    before = {
        name: m["finished"]
        for name, m in started_runs(folder).items()
        if m["status"] == "done"
    }
    second = subprocess.Popen(
        [*command, "--resume", str(folder), "--jobs", "2"], **quiet
    )
    kill_when(second, lambda: done(5), children=False)
    last = align("sweep", "--resume", folder, "--jobs", "2")
    assert last.returncode == 0, last.stderr
    runs = started_runs(folder)
    assert len(runs) == 9 and {m["status"] for m in runs.values()} == {"done"}
    assert before and all(
        runs[name]["finished"] == finished for name, finished in before.items()
    )
    for name in runs:  # each step of each run is there once
        rows = [
            json.loads(line)
            for line in (
                (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
            )
        ]
        assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert "| constant | 8.0 | constant | 3 |" in last.stdout
    assert (folder / "compare/curves_arithmetic_accuracy.png").is_file()
    compared = align("compare", folder, "--json")
    assert [row["seeds"] for row in json.loads(compared.stdout)["rows"]] == [
        [0, 1, 2]
    ] * 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_budget_of_tokens_ends_training_where_the_base_ended(sweep_file, tmp_path):
    text = (
        "variants: {base: {}, short: {generation: {max_new_tokens: 4}}}\nmetric:"
        " train/reward\n"
    )
    text += "budget: {equal: tokens}\n"
    assert align("sweep", sweep_file(text), "--out", tmp_path / "runs").returncode == 0
    spent = {}
    for path in (tmp_path / "runs").glob("*/runs/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        spent[path.parent.name] = [row["tokens"] for row in rows if "train/loss" in row]
    base, short = spent["base-seed0"], spent["short-seed0"]
    assert short[-1] >= base[-1] > short[-2]
    assert len(short) > len(base) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_collapsed_variant_is_stopped_and_shown_as_such(sweep_file, tmp_path):
    text = (
        "variants: {base: {}, hot: {train: {max_steps: 5000}}}\nmetric: train/reward\n"
    )
    text += "stop: [{metric: train/response_length, above: 0.5, logs: 8}]\n"
    done = align("sweep", sweep_file(text), "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert (
        "0 (+1 collapsed)" in done.stdout
        and "above 0.5 8 times in a row" in done.stdout
    )
    (folder,) = Path(tmp_path / "runs").iterdir()
    assert started_runs(folder)["hot-seed0"]["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_stops_its_runs_and_says_how_to_go_on(
    sweep_file, tmp_path, sent
):
    # neither is done before it is stopped
    variants = "{a: {train: {max_steps: 5000}}, b: {train: {max_steps: 6000}}}"
    path = sweep_file(f"variants: {variants}\nmetric: train/reward\n")
    command = [
        sys.executable,
        "-m",
        "alignkit.cli",
        "sweep",
        str(path),
        "--out",
        str(tmp_path / "runs"),
    ]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while (
        not list((tmp_path / "runs").glob("*/runs/*/metrics.jsonl"))
        and sweep.poll() is None
    ):
        time.sleep(0.2)
    sweep.send_signal(sent)
    said, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    assert "align sweep --resume" in said
    (folder,) = (tmp_path / "runs").iterdir()
    assert {m["status"] for m in started_runs(folder).values()} == {"interrupted"}
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
