"""The grader: deadlines that hold, deaths that cost one sample, order, caching, clean
ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grading_functions as functions
import pytest

from alignkit import MissingError, Reward, Score, WorkError
from alignkit.errors import PluginError
from alignkit.grading import Grader, bind


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2, memory=256 << 20) as grader:
        yield grader


def bound(function, deadline=10.0, where="auto", **options):
    return bind(
        Reward(function.__name__, function, deadline=deadline, where=where), options
    )


def statuses(graded):
    return [g.score.status for g in graded]


def test_results_come_in_the_order_of_the_responses(grader):
    responses = [str(i) for i in range(200)]
    graded = grader.score(
        bound(functions.in_order, prefix="p"), responses, [f"t{i}" for i in range(200)]
    )
    assert [g.score.explanation for g in graded] == [f"p{i}/t{i}" for i in range(200)]


def test_a_per_sample_reward_runs_in_another_process_unless_it_says_otherwise(grader):
    [outside] = grader.score(bound(functions.process_id), ["x"])
    [inside] = grader.score(bound(functions.process_id, where="process"), ["x"])
    assert outside.score.reward != os.getpid() and inside.score.reward == os.getpid()


@pytest.mark.parametrize(
    "function, response", [(functions.sleep, "60"), (functions.hold, "9")]
)
def test_what_never_ends_is_stopped_at_its_deadline_and_costs_only_itself(
    grader, function, response
):
    grader.score(bound(function, deadline=0.5), ["0"])
    started = time.perf_counter()
    graded = grader.score(bound(function, deadline=0.5), ["0", response, "0", "0"])
    # most is for the start of a fresh worker on a busy machine
    assert time.perf_counter() - started < 8
    assert statuses(graded) == ["ok", "timeout", "ok", "ok"]
    assert graded[1].score.reward == 0.0 and graded[1].seconds == 0.5


def test_the_deadline_counts_the_sample_and_not_its_time_in_the_queue(grader):
    assert (
        statuses(
            grader.score(
                bound(functions.sleep, deadline=2.0),
                ["0.15"] * 1 + [f"0.1{i}" for i in range(40)],
            )
        )
        == ["ok"] * 41
    )


def test_memory_beyond_the_limit_is_an_error_and_not_a_verdict(grader):
    small, large = grader.score(bound(functions.allocate), ["1000", str(4 << 30)])
    assert small.score.reward == 1000.0
    assert (large.score.status, large.score.stage) == ("error", "memory")


def test_a_crash_of_the_reward_is_an_error_with_its_traceback(grader):
    [graded] = grader.score(bound(functions.crash), ["abc"])
    assert graded.score.status == "error"
    assert (
        "KeyError" in graded.score.explanation
        and "no such key: abc" in graded.score.explanation
    )
    assert "grading_functions.py" in graded.score.explanation


def test_a_reward_that_is_no_finite_number_is_an_error(grader):
    assert statuses(
        grader.score(bound(functions.not_finite), ["nan", "inf", "0.5"])
    ) == ["error", "error", "ok"]


def test_an_error_the_user_can_mend_is_raised(grader):
    with pytest.raises(MissingError, match="SOME_KEY"):
        grader.score(bound(functions.needs_key), ["x"])


def test_a_sample_that_kills_its_workers_is_an_error_and_the_others_are_graded(grader):
    graded = grader.score(bound(functions.die), [*"abc", "die", *"def"])
    assert statuses(graded) == ["ok"] * 3 + ["error"] + ["ok"] * 3
    assert "died" in graded[3].score.explanation


def test_a_sample_whose_worker_was_killed_from_outside_is_graded_again(
    grader, tmp_path
):
    [graded] = grader.score(bound(functions.die_once), [str(tmp_path / "seen")])
    assert graded.score.status == "ok"


def test_random_kills_lose_nothing():
    stop = threading.Event()
    kills = 0

    def kill(pool):
        nonlocal kills
        chance = random.Random(0)
        while not stop.is_set():
            time.sleep(chance.uniform(0.2, 0.6))
            if pids := pool.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
                kills += 1

    with Grader(workers=2) as grader:
        killer = threading.Thread(target=kill, args=[grader.pool])
        killer.start()
        try:
            graded = grader.score(
                bound(functions.in_order),
                [str(i) for i in range(20_000)],
                list(range(20_000)),
            )
        finally:
            stop.set()
            killer.join()
    assert [g.score.explanation for g in graded] == [f"{i}/{i}" for i in range(20_000)]
    assert kills > 0


def test_the_same_sample_is_graded_once(grader, tmp_path):
    file = {"file": str(tmp_path / "calls")}
    for _ in range(2):
        grader.score(
            bound(functions.count_calls), ["a", "b", "a", "a"], metadatas=[file] * 4
        )
    assert Path(file["file"]).read_text() == ".."


def test_timeouts_and_errors_are_not_remembered(grader, tmp_path):
    reward = bound(functions.crash)
    assert statuses(grader.score(reward, ["x"])) == ["error"]
    assert not any(g.score.status == "error" for g in grader._cache.values())


def test_grading_goes_on_while_the_caller_does_something_else(grader):
    grader.score(bound(functions.sleep), ["0"])
    started = time.perf_counter()
    running = grader.submit(bound(functions.sleep), ["2"])
    assert time.perf_counter() - started < 1.5
    assert statuses(running.result()) == ["ok"] and running.result() is running.result()


@pytest.mark.parametrize(
    "function, where", [(functions.sleep, "process"), (functions.slow_batch, "auto")]
)
def test_a_reward_that_no_deadline_stops_is_named_while_it_runs(
    grader, monkeypatch, caplog, function, where
):
    monkeypatch.setattr("alignkit.grading.grader.PATIENCE", 0.1)
    assert statuses(grader.score(bound(function, where=where), ["0.5"])) == ["ok"]
    assert f"reward '{function.__name__}' has been at 1 responses" in caplog.text
    shown = len(caplog.records)
    time.sleep(0.3)
    assert len(caplog.records) == shown


def test_threads_can_share_a_grader(grader):
    results = {}

    def work(name):
        graded = grader.score(
            bound(functions.in_order), [f"{name}{i}" for i in range(50)], [0] * 50
        )
        results[name] = [g.score.explanation for g in graded]

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [f"{name}{i}/0" for i in range(50)] for name in "abcd"}


def test_async_rewards_run_together_and_each_has_the_deadline(grader):
    started = time.perf_counter()
    graded = grader.score(bound(functions.wait, deadline=0.5), ["0.3"] * 20 + ["30"])
    assert time.perf_counter() - started < 5  # one after another: 6 s
    assert statuses(graded) == ["ok"] * 20 + ["timeout"]
    assert statuses(
        grader.score(bound(functions.wait_and_crash), ["crash", "fine"])
    ) == ["error", "ok"]


def test_batch_rewards_get_whole_columns(grader):
    assert [
        g.score.reward
        for g in grader.score(bound(functions.batch), ["ab", "c"], prompts=["x", "yz"])
    ] == [3, 3]
    assert [
        g.score.reward
        for g in grader.score(bound(functions.wait_for_all), ["a", "b"], ["a", "c"])
    ] == [1, 0]
    assert statuses(grader.score(bound(functions.one_value), ["a", "b"])) == [
        "error",
        "error",
    ]


def test_no_responses_make_no_grades(grader):
    assert grader.score(bound(functions.length), []) == []


def test_prints_do_not_reach_standard_output_and_input_is_empty(capfd):
    with Grader(workers=1) as grader:
        assert grader.score(bound(functions.shout), ["x"])[0].score.reward == 1.0
        assert (
            grader.score(bound(functions.stdin_is_closed), ["x"])[0].score.reward == 1.0
        )
    out, err = capfd.readouterr()
    assert out == "" and "shouted x" in err


def test_a_closed_grader_says_so_and_leaves_no_process():
    grader = Grader(workers=1)
    waiting = grader.submit(bound(functions.sleep, deadline=60), ["50"])
    while not grader.pool.processes():
        time.sleep(0.01)
    [pid] = grader.pool.processes()
    grader.close()
    with pytest.raises(WorkError, match="closed"):
        waiting.result()
    with pytest.raises(WorkError, match="closed"):
        grader.score(bound(functions.length), ["x"])
    assert not Path(f"/proc/{pid}").exists()


def test_closing_settles_each_sample_once_in_a_worker_or_waiting(monkeypatch):
    crashed = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    grader = Grader(workers=1)
    pending = [
        grader.submit(bound(functions.sleep, deadline=60), [f"{50 + n}"])
        for n in range(40)
    ]
    while not any(worker.tasks for worker in list(grader.pool._workers)):
        time.sleep(0.01)
    grader.close()
    assert not crashed
    for one in pending:
        with pytest.raises(WorkError, match="closed"):
            one.result()


def test_a_function_that_a_worker_cannot_import_is_named():
    def local(response):
        return 1.0

    local.__qualname__, local.__module__ = "gone", "grading_functions"
    functions.gone = local
    try:
        with Grader(workers=1) as grader, pytest.raises(WorkError, match="gone"):
            grader.score(bound(local), ["x"])
    finally:
        del functions.gone


SCRIPT = """
import os, sys, threading, time
import grading_functions as functions
from alignkit import Reward
from alignkit.grading import Grader, bind
grader = Grader(workers=1)
def tell():
    while not grader.pool.processes():
        time.sleep(0.01)
    print(*grader.pool.processes(), flush=True)
threading.Thread(target=tell).start()
with grader:
    grader.score(bind(Reward("r", functions.{function}, deadline={deadline})), ["{response}"])
"""


@pytest.mark.parametrize(
    "signal_number, function, deadline, response",
    [
        (signal.SIGINT, "sleep", 60, "50"),  # Ctrl-C
        # the parent dies while a sample is being graded
        (signal.SIGKILL, "sleep", 60, "50"),
        (signal.SIGKILL, "hold", 2, "9"),
        (signal.SIGTERM, "length", 60, "x"),
    ],
)
def test_workers_end_with_their_parent(signal_number, function, deadline, response):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    script = SCRIPT.format(function=function, deadline=deadline, response=response)
    if function == "length":
        script += "    time.sleep(60)\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        worker = int(parent.stdout.readline())
        time.sleep(1.0)
        assert Path(f"/proc/{worker}").exists()
        parent.send_signal(signal_number)
        parent.wait(10)
        until = time.monotonic() + 20
        while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{worker}").exists()
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_binding_reads_what_a_function_wants():
    assert bound(functions.in_order, prefix="x").arguments == ("truth", "response")
    assert (
        bound(functions.batch).form == "batch"
        and bound(functions.batch).where == "process"
    )
    assert bound(functions.wait).is_async and bound(functions.wait).where == "process"


def wrong_name(answer):
    return 0.0


def mixed(response, truths):
    return 0.0


@pytest.mark.parametrize("function", [wrong_name, mixed, lambda: 0.0])
def test_a_function_with_unknown_parameters_is_refused_with_its_place(function):
    with pytest.raises(
        PluginError, match=r"test_grading_pool.py:\d+.*expected any of response, truth"
    ):
        bind(Reward("r", function))


def test_an_async_reward_cannot_ask_for_the_pool():
    with pytest.raises(PluginError, match="where='pool'"):
        bind(Reward("r", functions.wait, where="pool"))


def test_a_score_may_be_returned_or_a_number(grader):
    assert grader.score(bound(functions.length), ["abc"])[0].score == Score(3.0)


def test_workers_start_in_a_process_with_a_thousand_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1200)]
    try:
        with Grader(workers=1) as grader:
            assert statuses(grader.score(bound(functions.sleep), ["0"])) == ["ok"]
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
