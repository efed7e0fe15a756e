"""Executors: what they refuse, and a sweep whose workers are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from alignkit import Task, kits, plugins
from alignkit.cli import main

SWEEP = """\
variants:
  sequence: {}
  token: {loss: {normalize: token}}
seeds: [0, 1]
metric: eval/arithmetic/accuracy
"""
SUBMITIT = ("--executor", "slurm", "--slurm", "cluster=local")


def align(*arguments, **environment):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "alignkit.cli", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def refused(capsys, sweep_file, tmp_path):
    """What a command says that leaves with 2 or 3 and starts nothing."""

    def run(command, *arguments):
        given = sweep_file(SWEEP) if command == "sweep" else tmp_path / "tiny.yaml"
        out = tmp_path / "runs"
        with pytest.raises(SystemExit) as left:
            main([command, str(given), "--out", str(out), *arguments])
        assert left.value.code in (2, 3) and not out.exists()
        said = capsys.readouterr().err.splitlines()
        said = [line for line in said if not line.startswith("recipe: ")]
        assert len(said) == 1
        return left.value.code, said[0]

    return run


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--executor", "slrum"], 2, "did you mean 'slurm'?"),
        (["--slurm", "time=3"], 2, "executor 'local' has no option 'slurm'"),
        (["--executor", "ray", "--slurm", "time=3"], 2, "no option 'slurm'"),
        ([*SUBMITIT, "--address", "x:1"], 2, "no option 'address'"),
        ([*SUBMITIT, "--slurm", "partitoin=gpu"], 2, "there is no such key"),
        (["--executor", "slurm", "--slurm", "time"], 2, "expected KEY=VALUE"),
        (["--executor", "slurm"], 2, "--slurm time=120"),
        (["--executor", "slurm", "--slurm", "time=9"], 3, "there is no srun here"),
        (["--executor", "ray", "--address", "here"], 2, "expected HOST:PORT"),
        (["--executor", "ray", "--address", "127.0.0.1:9"], 2, "no cluster of Ray"),
    ],
)
def test_what_no_executor_can_do_is_one_line(
    refused, tiny, command, arguments, code, says
):
    left, line = refused(command, *arguments)
    assert left == code and says in line


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_executor_names_the_package_that_it_lacks(name, package, tmp_path):
    code = (
        f"import sys; sys.modules['{package}'] = None\nfrom alignkit import kits, plugins"
        f"\nr = plugins.load([kits.builtin()])\nr.get('executor', '{name}').value.make()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert f"pip install 'alignkit[{name}]'" in last and "MissingError" in last


def test_a_slurm_job_asks_for_what_was_said(monkeypatch, tmp_path):
    for name, text in (("srun", ""), ("sbatch", 'echo "Submitted batch job 7"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    make = plugins.load([kits.builtin()]).get("executor", "slurm").value.make
    workers = make(slurm={"time": "90", "partition": "gpu", "gpus_per_node": "2"})
    paths = (tmp_path / part for part in ("r.yaml", "run", "logs/a.log"))
    workers.submit(Task("a", *paths))
    script = (tmp_path / "logs/a.slurm/7_submission.sh").read_text()
    for flag in ("time=90", "partition=gpu", "gpus-per-node=2", "job-name=a"):
        assert f"#SBATCH --{flag}\n" in script
    assert "--signal=USR1@90" in script  # USR2 asks for stacks


def runs_of(out):
    found = {}
    for path in out.glob("sweep-*/runs/*/manifest.json"):
        try:
            found[path.parent.name] = json.loads(path.read_text())
        except ValueError:
            continue  # it is being replaced
    return found


def worker_of(process, kind, names):
    """The process that works on one of these runs for a command, apart from the run."""
    for member in psutil.Process(process.pid).children(recursive=True):
        try:
            if kind not in " ".join(member.cmdline()):
                continue
            for child in member.children():
                words = child.cmdline()
                if "--tied" in words and any(n in " ".join(words) for n in names):
                    return member
        except psutil.NoSuchProcess:
            continue
    return None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("flags", "kind"),
    [(SUBMITIT, "submitit.core._submit"), (("--executor", "ray"), "ray::")],
    ids=["submitit", "ray"],
)
def test_a_sweep_outlives_a_killed_worker_and_repeats_nothing(
    sweep_file, tmp_path, flags, kind
):
    out, home = tmp_path / "runs", tmp_path / "home"
    home.mkdir()
    long = ("--set", "train.max_steps=60")  # long enough to be killed in its middle
    where = ("--jobs", 2, "--out", out, *flags)
    sweep = align("sweep", sweep_file(SWEEP), *long, *where, HOME=str(home))
    end, killed, before, family = time.monotonic() + 400, 0, {}, set()
    while sweep.poll() is None and time.monotonic() < end:
        family |= {p.pid for p in psutil.Process(sweep.pid).children(recursive=True)}
        runs = runs_of(out)
        done = {n: m["finished"] for n, m in runs.items() if m["status"] == "done"}
        going = [path.parent.name for path in out.glob("*/runs/*/metrics.jsonl")]
        going = [
            name for name in going if runs.get(name, {}).get("status") == "running"
        ]
        if not killed and done and (worker := worker_of(sweep, kind, going)):
            before, killed = done, worker.pid
            worker.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    said, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, said
    assert killed and "lost: " in said
    runs = runs_of(out)
    assert len(runs) == 4 and {m["status"] for m in runs.values()} == {"done"}, said
    assert before.items() <= {n: m["finished"] for n, m in runs.items()}.items()
    for path in out.glob("sweep-*/runs/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["step"] for row in rows if "train/loss" in row] == [*range(1, 61)]
    end = time.monotonic() + 20
    while (left := [p for p in family if working(p)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
    assert not list(home.rglob("*token*"))


def working(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_elsewhere_is_shown_and_ends_with_its_code(tiny, tmp_path):
    done = align("run", tiny, "--out", tmp_path / "runs", *SUBMITIT)
    said, _ = done.communicate(timeout=280)
    assert done.returncode == 0, said
    (manifest,) = (tmp_path / "runs").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "done"
    (home,) = (tmp_path / "runs").glob("*.submitted")
    assert (home / "recipe.yaml").is_file() and list(home.glob("log.slurm/*"))


SAVES = ("train.max_steps=80", "train.save_strategy=steps", "train.save_steps=5")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_preempted_job_saves_and_goes_on_where_it_was(tiny, tmp_path):
    out = tmp_path / "runs"
    sets = [part for text in SAVES for part in ("--set", text)]
    run = align("run", tiny, "--out", out, *sets, *SUBMITIT)
    end, told = time.monotonic() + 200, False
    while run.poll() is None and time.monotonic() < end:
        saved = [path.parents[1].name for path in out.glob("*/checkpoints/*")]
        if saved and not told:
            worker = worker_of(run, "submitit.core._submit", saved)
            if worker is not None:
                worker.send_signal(signal.SIGUSR1)
                told = True
        time.sleep(0.05)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 0 and told, said
    (manifest,) = out.glob("*/manifest.json")
    found = json.loads(manifest.read_text())
    assert found["status"] == "done" and len(found["resumed"]) == 1
    log = (manifest.parent / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, log) if "train/loss" in row]
    assert [row["step"] for row in rows] == [*range(1, 81)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "flags", [SUBMITIT, ("--executor", "ray")], ids=["submitit", "ray"]
)
def test_an_interrupted_sweep_leaves_no_process(sweep_file, tmp_path, flags):
    out = tmp_path / "runs"
    long = ("--set", "train.max_steps=50000")
    path = sweep_file(SWEEP)
    sweep = align("sweep", path, *long, "--jobs", 2, "--out", out, *flags)
    end = time.monotonic() + 150
    while not list(out.glob("*/runs/*/metrics.jsonl")) and time.monotonic() < end:
        time.sleep(0.2)
    family = [p.pid for p in psutil.Process(sweep.pid).children(recursive=True)]
    sweep.send_signal(signal.SIGINT)
    said, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 130 and f"--executor {flags[1]}" in said, said
    end = time.monotonic() + 20
    while (left := [p for p in family if working(p)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_of_ray_with_files_of_its_own_hands_over_what_it_wrote(tiny, tmp_path):
    """The actor's class without Ray; the recipe's path leads nowhere there."""
    from alignkit.kits.builtin.plugins import _ray_work

    recipe = tiny.read_bytes()
    task = Task("a", *(tmp_path / "elsewhere" / n for n in ("r.yaml", "run", "log")))
    work = _ray_work.Work(task, recipe, 1, {})
    seen, code, end = set(), None, time.monotonic() + 300
    while code is None and time.monotonic() < end:
        code, news = work.poll()
        seen |= set(news)
        time.sleep(0.1)
    assert code == 0 and seen == {"", *_ray_work.LIVE}
    size, packed = work.pack(), tmp_path / "run.tar"
    with packed.open("wb") as file:
        while file.tell() < size:
            file.write(work.piece(file.tell()))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/manifest.json").touch()  # as it was told meanwhile
    _ray_work.unpack(packed, tmp_path / "run")
    work.clean()
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "done"
    assert (tmp_path / "run/model/config.json").is_file()
    assert not work.scratch.exists() and not packed.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_lost_node_of_a_cluster_worked_on_runs_elsewhere(
    sweep_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        out = tmp_path / "runs"
        long = ("--set", "train.max_steps=60")
        where = ("--executor", "ray", "--address", cluster.address)
        sweep = align("sweep", sweep_file(SWEEP), *long, "--out", out, *where)
        end, lost = time.monotonic() + 400, False
        while sweep.poll() is None and time.monotonic() < end:
            if not lost and len(list(out.glob("*/runs/*/metrics.jsonl"))) >= 2:
                cluster.remove_node(node, allow_graceful=False)
                lost = True
            time.sleep(0.1)
        said, _ = sweep.communicate(timeout=60)
    finally:
        cluster.shutdown()
    assert sweep.returncode == 0 and lost, said
    assert "2 at a time" in said and "lost: " in said
    runs = runs_of(out)
    assert len(runs) == 4 and {m["status"] for m in runs.values()} == {"done"}, said


def test_a_task_begins_its_run_or_goes_on_as_its_folder_says(tmp_path):
    folder = tmp_path / "run"
    task = Task("a", tmp_path / "a.yaml", folder, tmp_path / "a.log", take_over=True)
    folder.mkdir()
    (folder / "manifest.json").touch()  # killed before the last of its first files
    assert task.command()[-3:] == [str(task.recipe), "--folder", str(folder)]
    assert not folder.exists()
    folder.mkdir()
    (folder / "recipe.yaml").touch()
    assert task.command()[-3:] == ["--resume", str(folder), "--take-over"]
    assert (folder / "recipe.yaml").exists()
