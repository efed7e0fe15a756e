"""A sweep's jobs: slots, failures, collapse, reuse, resumption. The executor writes
finished run folders itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from alignkit import kits, plugins, provenance
from alignkit.errors import InputError, MissingError
from alignkit.machine import gpus
from alignkit.run import Run, write_json
from alignkit.sweep import check, jobs, runner, spec
from alignkit.sweep.local import LocalWorkers
from alignkit.sweep.runner import Runner

VARIANTS = (
    "variants:\n  a: {}\n  b: {loss: {normalize: token}}\n  c: {loss: {normalize:"
    " constant, constant: 8}}\n"
)


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(runner, "POLL", 0.001)


@pytest.fixture
def start(sweep_file, registry, tmp_path):
    """Makes a sweep in `runs/`."""

    def make(text=VARIANTS, seeds=(0,)):
        checked = check.check_sweep(
            spec.read(sweep_file(text), seeds=seeds, overlays=(), sets=()), registry
        )
        sweep, make.run = jobs.create(checked, registry, tmp_path / "runs")
        return sweep

    return make


class Cluster:
    """An executor with nothing but the interface: a job takes two polls and leaves a
    run folder as `align run` does.
    """

    def __init__(self, registry, slots=2, fail=(), rows=()):
        self.registry, self.slots, self.fail, self.rows = registry, slots, fail, rows
        self.submitted, self.cancelled, self.most = [], [], 0
        self.left, self.runs = {}, {}

    def submit(self, task):
        command = task.command()
        what = command[command.index("run") + 1 :]
        name = Path(
            what[what.index("--folder") + 1] if "--folder" in what else what[1]
        ).name
        self.submitted.append(name)
        self.left[name] = 2
        self.most = max(self.most, sum(left > 0 for left in self.left.values()))
        if "--resume" in what:
            self.runs[name] = Run.reopen(what[1])
        else:
            folder = Path(what[what.index("--folder") + 1])
            run = self.runs[name] = Run.create(folder.parent, name, folder)
            loaded = check.recipe.load(what[0], registry=self.registry)
            run.write("recipe.yaml", check.recipe.to_yaml(loaded.resolved))
            run.update(**provenance.of_run(loaded, self.registry).record())
            for step, row in enumerate(self.rows, 1):
                run.append_metrics({"step": step, **row})
        return Path(what[what.index("--folder") + 1] if "--folder" in what else what[1])

    def poll(self, handle):
        self.left[handle.name] -= 1
        if self.left[handle.name] > 0:
            return None
        if Run.open(handle).manifest["status"] == "running":
            failed = any(word in handle.name for word in self.fail)
            self.runs[handle.name].finish(
                "failed" if failed else "done",
                error="out of memory" if failed else None,
            )
        return 0

    def cancel(self, handle):
        self.cancelled.append(handle.name)
        self.runs[handle.name].finish("interrupted")
        self.left[handle.name] = 0


def work(sweep, cluster, registry):
    Runner(sweep, cluster, registry, lambda job: None).run()
    return {job.name: job.status for job in sweep.jobs}


def test_every_job_is_run_seed_by_seed_and_no_more_at_a_time_than_slots(
    start, registry
):
    cluster = Cluster(registry, slots=2)
    statuses = work(start(seeds=(0, 1)), cluster, registry)
    assert set(statuses.values()) == {"done"} and cluster.most == 2
    assert cluster.submitted == [
        "a-seed0",
        "b-seed0",
        "c-seed0",
        "a-seed1",
        "b-seed1",
        "c-seed1",
    ]


def test_a_failed_job_does_not_stop_the_others_and_says_why(start, registry):
    sweep = start()
    statuses = work(sweep, Cluster(registry, fail=["b"]), registry)
    assert statuses == {"a-seed0": "done", "b-seed0": "failed", "c-seed0": "done"}
    assert sweep.of("failed")[0].note.startswith("out of memory (exit code 0; ")


def test_resuming_repeats_nothing_that_is_done_and_tries_again_what_failed(
    start, registry
):
    sweep = start()
    work(sweep, Cluster(registry, fail=["b"]), registry)
    start.run.finish("failed")
    again, _ = jobs.reopen(sweep.folder)
    cluster = Cluster(registry)
    assert set(work(again, cluster, registry).values()) == {"done"}
    assert cluster.submitted == ["b-seed0"]


def test_a_run_that_outlived_its_sweep_is_waited_for_and_not_started_again(
    start, registry
):
    sweep = start()
    orphan = Run.create(Path(sweep.jobs[0].run).parent, "a", Path(sweep.jobs[0].run))
    cluster = Cluster(registry)

    calls = iter(range(1000))

    def tick():
        if next(calls) == 30:
            orphan.finish("done")

    Runner(sweep, cluster, registry, lambda job: None).run(tick)
    assert sweep.jobs[0].status == "done" and cluster.submitted == [
        "b-seed0",
        "c-seed0",
    ]


def test_what_an_earlier_sweep_or_run_did_is_reused(start, registry):
    first = start()
    work(first, Cluster(registry), registry)
    second = start(seeds=(0, 1))
    assert [job.name for job in second.of("done")] == ["a-seed0", "b-seed0", "c-seed0"]
    assert [job.run for job in second.of("done")] == [job.run for job in first.jobs]
    cluster = Cluster(registry)
    work(second, cluster, registry)
    assert cluster.submitted == ["a-seed1", "b-seed1", "c-seed1"]


REWARD = """\
from alignkit import Reward, hookimpl
from ._rules import near


def nearest(response: str, truth: str) -> float:
    return near(response, truth)


@hookimpl
def align_rewards():
    yield Reward("nearest", nearest)
"""


@pytest.fixture
def helped(tmp_path, tiny):
    """The recipe with a reward of a kit that has a helper: the helper, and a function
    that loads the plugins.
    """
    helper = tmp_path / "mine/rewards/_rules.py"
    helper.parent.mkdir(parents=True)
    helper.write_text("def near(a, b):\n    return float(a == b)\n")
    (helper.parent / "nearest.py").write_text(REWARD)
    tiny.write_text(tiny.read_text().replace("drgrpo: {}", "nearest: {}"))

    def load():
        return plugins.load([kits.builtin(), kits.at(tmp_path / "mine", "here")])

    return helper, load


@pytest.fixture
def begin(sweep_file, helped, tmp_path):
    """Makes a sweep in `runs/` with plugins as they are now."""

    def make():
        registry = helped[1]()
        read = spec.read(sweep_file(VARIANTS), seeds=(0,), overlays=(), sets=())
        checked = check.check_sweep(read, registry)
        sweep, make.run = jobs.create(checked, registry, tmp_path / "runs")
        return sweep, registry

    return make


def test_a_run_of_another_helper_is_not_reused(begin, helped):
    first, registry = begin()
    work(first, Cluster(registry), registry)
    helped[0].write_text("def near(a, b):  # the same\n    return float(a == b)\n")
    assert len(begin()[0].of("done")) == 3
    helped[0].write_text("def near(a, b):\n    return float(a != b)\n")
    assert begin()[0].of("done") == []


def test_a_sweep_is_not_gone_on_with_when_a_helper_has_changed(begin, helped):
    sweep, registry = begin()
    work(sweep, Cluster(registry, fail=["b-"]), registry)
    begin.run.finish("failed")
    again, made = jobs.reopen(sweep.folder)
    jobs.go_on(again, made, registry)
    made.finish("failed")
    helped[0].write_text("def near(a, b):\n    return float(a != b)\n")
    again, made = jobs.reopen(sweep.folder)
    with pytest.raises(InputError) as caught:
        jobs.go_on(again, made, registry)
    said = "reward nearest: its helper rewards/_rules.py changed since these were run"
    assert f"{said}: a-seed0, c-seed0" in str(caught.value)
    assert Run.open(sweep.folder).status == "interrupted"


def test_runs_of_0_1_are_kept_in_their_sweep_not_reused_in_others_and_said(begin):
    sweep, registry = begin()
    work(sweep, Cluster(registry, fail=["b-"]), registry)
    begin.run.finish("failed")
    for job in sweep.of("done"):
        run = Run.open(job.run)
        del run.manifest["identity"]
        run.update(fingerprint="ab" * 32)
    again, made = jobs.reopen(sweep.folder)
    jobs.go_on(again, made, registry)
    assert [job.status for job in again.jobs] == ["done", "waiting", "done"]
    assert "2 runs were done by alignkit 0.1" in again.notes[0]
    other = begin()[0]
    assert other.of("done") == [] and "not reused" in other.notes[0]


def test_an_unfinished_run_is_not_reused(start, registry):
    work(start(), Cluster(registry, fail=["a"]), registry)
    assert [job.name for job in start().of("done")] == ["b-seed0", "c-seed0"]


def test_a_variant_that_breaks_a_rule_is_stopped_and_recorded_as_collapsed(
    start, registry
):
    sweep = start(VARIANTS + "stop: [{metric: train/entropy, below: 0.1, logs: 2}]\n")
    cluster = Cluster(
        registry, rows=[{"train/entropy": value} for value in (1.0, 0.05, 0.04)]
    )
    assert set(work(sweep, cluster, registry).values()) == {"collapsed"}
    assert cluster.cancelled == ["a-seed0", "b-seed0", "c-seed0"]
    again = json.loads((sweep.folder / "sweep.json").read_text())["jobs"][0]
    assert (
        again["note"] == "stopped at step 3: train/entropy below 0.1 2 times in a row"
    )


def test_a_variant_whose_run_raised_the_alarm_of_a_check_is_stopped(start, registry):
    sweep = start(VARIANTS + "stop: [{check: collapse}]\n")
    job = sweep.jobs[0]
    folder = Path(job.run)
    folder.mkdir(parents=True)
    alarm = {"step": 20, "check": "truncated", "level": "stop", "title": "cut"}
    write_json(folder / "manifest.json", {"alarms": [alarm]})
    (rule,) = sweep.stop
    assert not jobs.breaks(job, rule, [])
    alarms = [alarm, {**alarm, "check": "collapse"}]
    write_json(folder / "manifest.json", {"alarms": alarms})
    assert jobs.breaks(job, rule, [])


def test_with_a_budget_the_base_runs_first_and_the_others_get_what_it_spent(
    start, registry
):
    sweep = start(
        "variants: {a: {}, b: {generation: {max_new_tokens: 4}}}\nbudget: {equal:"
        " tokens}\n",
        seeds=(0, 1),
    )
    cluster = Cluster(
        registry,
        slots=4,
        rows=[{"tokens": 100, "train/loss": 0.1}, {"tokens": 250, "train/loss": 0.1}],
    )
    assert set(work(sweep, cluster, registry).values()) == {"done"}
    assert cluster.submitted[:2] == ["a-seed0", "a-seed1"]
    given = check.recipe.load(sweep.folder / "recipes/b-seed0.yaml").config
    assert given.budget.tokens == 250 and given.train["max_steps"] == 16


def test_without_the_base_there_is_no_budget(start, registry):
    sweep = start(
        "variants: {a: {}, b: {generation: {max_new_tokens: 4}}}\nbudget: {equal:"
        " tokens}\n"
    )
    assert work(sweep, Cluster(registry, fail=["a-"]), registry) == {
        "a-seed0": "failed",
        "b-seed0": "failed",
    }
    assert "there is no budget" in sweep.jobs[1].note


def test_an_interrupt_stops_what_runs_and_leaves_it_to_be_resumed(start, registry):
    sweep = start()
    cluster = Cluster(registry, slots=1)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner(sweep, cluster, registry, lambda job: None).run(interrupt)
    assert cluster.cancelled == ["a-seed0"]
    assert {
        job["status"]
        for job in json.loads((sweep.folder / "sweep.json").read_text())["jobs"]
    } == {"waiting"}
    assert Run.open(sweep.jobs[0].run).status == "interrupted"


def test_a_sweep_that_is_being_worked_on_is_not_resumed(start):
    with pytest.raises(InputError, match="being worked on by process"):
        jobs.reopen(start().folder)


def test_a_folder_that_is_no_sweep_is_not_resumed(tmp_path):
    with pytest.raises(InputError, match="is no sweep"):
        jobs.reopen(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"stop": [], "jobs": [{"who": 1}]}']
)
def test_a_damaged_sweep_is_named_when_it_is_resumed(start, text):
    sweep = start()
    start.run.finish("interrupted")
    (sweep.folder / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep.json is damaged"):
        jobs.reopen(sweep.folder)


def wait(executor, handle, seconds=20):
    end = time.monotonic() + seconds
    while (code := executor.poll(handle)) is None and time.monotonic() < end:
        time.sleep(0.01)
    return code


def test_local_jobs_write_their_log_and_give_their_exit_code(tmp_path):
    executor = LocalWorkers(1)
    handle = executor.start(
        [sys.executable, "-c", "print('here'); raise SystemExit(3)"],
        tmp_path / "logs/a.log",
    )
    assert (
        wait(executor, handle) == 3
        and (tmp_path / "logs/a.log").read_text() == "here\n"
    )


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "logs").touch()
    with pytest.raises(MissingError, match=r"cannot write .*logs"):
        LocalWorkers(1).start([sys.executable, "-c", ""], tmp_path / "logs/a.log")


def test_cancelling_asks_a_job_and_then_kills_it_with_its_children(tmp_path):
    child = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(60)'])"
    )
    deaf = (
        child
        + "; import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(p.pid,"
        " flush=True); time.sleep(60)"
    )
    executor = LocalWorkers(1)
    handle = executor.start([sys.executable, "-c", deaf], tmp_path / "log")
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.01)
    executor.cancel(handle)
    assert executor.poll(handle) is None
    executor.cancel(handle)
    assert wait(executor, handle) == -9
    pid = int((tmp_path / "log").read_text().split()[0])
    end = time.monotonic() + 10
    while (
        Path(f"/proc/{pid}").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text()
        and time.monotonic() < end
    ):
        time.sleep(0.01)
    assert (
        not Path(f"/proc/{pid}").exists()
        or "Z" in Path(f"/proc/{pid}/stat").read_text()
    )


def test_each_local_job_gets_gpus_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert gpus.visible() == ["4", "5", "6"]
    assert LocalWorkers().slots == 3 and LocalWorkers(processes=2).slots == 1
    executor = LocalWorkers()
    show = [
        sys.executable,
        "-c",
        "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])",
    ]
    handles = [executor.start(show, tmp_path / str(number)) for number in range(3)]
    assert [wait(executor, handle) for handle in handles] == [0, 0, 0]
    assert [(tmp_path / str(number)).read_text().strip() for number in range(3)] == [
        "4",
        "5",
        "6",
    ]


def test_without_a_gpu_one_job_runs_at_a_time_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LocalWorkers().slots == 1 and LocalWorkers(4).slots == 4
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
