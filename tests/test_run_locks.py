"""One writer at a time: held, named, shared, given back, and freed by any death."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from alignkit.cli import main
from alignkit.errors import InputError
from alignkit.evaluate.store import Store
from alignkit.run import Run, lock, write_rows

# Does what it is told, a line at a time, and answers with a line.
WORKER = """
import os, sys
from alignkit.errors import InputError
from alignkit.run import Run, lock
from pathlib import Path
held = None
for line in sys.stdin:
    what, *rest = line.split()
    try:
        if what == "lock":
            held = lock(Path(rest[0]), shared="shared" in rest)
        elif what == "share":
            held.share()
        elif what == "release":
            held.release()
        elif what == "reopen":
            held = Run.reopen(rest[0])
        elif what == "finish":
            held.finish("interrupted")
        elif what == "count":  # not atomic: two at once would lose a step
            done = 0
            while done < int(rest[1]):
                try:
                    with lock(Path(rest[0])):
                        number = int(Path(rest[0]).read_text())
                        Path(rest[0]).write_text(str(number + 1))
                        done += 1
                except InputError:
                    pass
        elif what == "fork":
            child = os.fork()
            if child == 0:
                held.release()
                sys.stdin.close()
                import time; time.sleep(60)
            print(child, flush=True)
            continue
        elif what == "spawn":
            import subprocess
            print(subprocess.Popen(["sleep", "60"], close_fds=False).pid, flush=True)
            continue
        print("yes", flush=True)
    except InputError as error:
        print(f"no: {error}", flush=True)
"""


class Worker:
    """Another process."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True
        )
        self.pid = self.process.pid

    def tell(self, *words: object) -> None:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, *words: object) -> str:
        self.tell(*words)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start():
    """Starts workers; they end with the test."""
    workers = []

    def make(count: int = 1):
        workers.extend(Worker() for _ in range(count))
        return workers[-count:] if count > 1 else workers[-1]

    yield make
    for worker in workers:
        worker.kill()
        worker.process.stdin.close()
        worker.process.stdout.close()


TRIALS = [10, pytest.param(50, marks=pytest.mark.slow)]


@pytest.mark.parametrize("trials", TRIALS)
def test_exactly_one_of_many_gets_a_lock_and_the_others_say_who(
    tmp_path, start, trials
):
    workers = start(4)
    for number in range(trials):
        target = tmp_path / f"{number}.jsonl"
        for worker in workers:
            worker.tell("lock", target)
        answers = [worker.answer() for worker in workers]
        (winner,) = (
            w for w, said in zip(workers, answers, strict=True) if said == "yes"
        )
        losers = [said for said in answers if said != "yes"]
        assert all(f"by process {winner.pid} on" in said for said in losers), losers
        assert winner.ask("release") == "yes"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trials", TRIALS)
def test_exactly_one_of_many_resumes_a_run(tmp_path, start, trials):
    made = Run.create(tmp_path, "a")
    made.finish("interrupted")
    workers = start(3)
    for _ in range(trials):
        for worker in workers:
            worker.tell("reopen", made.folder)
        answers = [worker.answer() for worker in workers]
        assert answers.count("yes") == 1, answers
        winner = workers[answers.index("yes")]
        assert sum(f"by process {winner.pid}" in said for said in answers) == 2, answers
        assert winner.ask("finish") == "yes"


@pytest.mark.parametrize("times", TRIALS)
def test_no_two_ever_work_at_once_while_locks_come_and_go(tmp_path, start, times):
    file = tmp_path / "number"
    file.write_text("0")
    workers = start(3)
    for worker in workers:
        worker.tell("count", file, times)
    assert [worker.answer() for worker in workers] == ["yes"] * 3
    assert int(file.read_text()) == 3 * times


def test_a_killed_holder_frees_its_lock(tmp_path, start):
    holder, other = start(2)
    assert holder.ask("lock", tmp_path) == "yes"
    assert other.ask("lock", tmp_path).startswith("no")
    holder.kill()
    assert other.ask("lock", tmp_path) == "yes"


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path, start, how):
    holder, other = start(2)
    assert holder.ask("lock", tmp_path) == "yes"
    child = int(holder.ask(how))
    try:
        time.sleep(0.2)  # the forked child has called `release` by then
        assert other.ask("lock", tmp_path).startswith("no"), "the parent's, still"
        holder.kill()
        os.kill(child, 0)  # the child lives
        assert other.ask("lock", tmp_path) == "yes"
    finally:
        os.kill(child, signal.SIGKILL)


def test_those_who_share_keep_others_out_until_the_last_has_gone(tmp_path, start):
    parent, first, second, other = start(4)
    assert parent.ask("lock", tmp_path) == "yes"
    assert first.ask("lock", tmp_path, "shared").startswith("no")
    assert parent.ask("share") == "yes"
    assert first.ask("lock", tmp_path, "shared") == "yes"
    assert second.ask("lock", tmp_path, "shared") == "yes"
    parent.kill()
    assert f"by process {second.pid}" in other.ask("lock", tmp_path)
    assert first.ask("release") == "yes"
    assert other.ask("lock", tmp_path).startswith("no")
    second.kill()
    assert other.ask("lock", tmp_path) == "yes"


def test_a_lock_is_waited_for_where_its_holder_is_about_to_go(tmp_path, start):
    holder = start()
    assert holder.ask("lock", tmp_path) == "yes"
    holder.process.stdin.close()
    with lock(tmp_path, patience=20):
        assert holder.process.wait(10) == 0


def test_a_lock_leaves_no_file_and_can_be_taken_again(tmp_path):
    for target in (tmp_path, tmp_path / "rows.jsonl"):
        with lock(target):
            (file,) = tmp_path.iterdir()
            assert json.loads(file.read_text())["pid"] == os.getpid()
            with pytest.raises(InputError, match=rf"by process {os.getpid()} on"):
                lock(target)
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_released_twice_leaves_that_of_another(tmp_path):
    first = lock(tmp_path)
    first.release()
    with lock(tmp_path):
        first.release()
        with pytest.raises(InputError):
            lock(tmp_path)


def test_a_file_system_without_locks_is_named_once(tmp_path, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with lock(tmp_path) as held:
            held.share()
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "keeps no locks (No locks available)" in record.getMessage()
    assert list(tmp_path.iterdir()) == []


# -- who takes it --------------------------------------------------------------------------


def test_a_run_that_was_killed_is_resumed_although_its_number_lives_again(tmp_path):
    made = Run.create(tmp_path, "a")
    made.update(pid=os.getppid())
    made._held.forget()  # as by kill -9: the file stays
    assert Run.reopen(made.folder).status == "running"


def test_a_run_of_0_1_at_work_is_known_by_its_process(tmp_path):
    made = Run.create(tmp_path, "a")
    for name in ("started", "boot", "heartbeat"):
        made.manifest.pop(name)
    made.update(pid=os.getppid())
    made.release()  # 0.1 has no locks
    with pytest.raises(InputError, match=f"by process {os.getppid()}"):
        Run.reopen(made.folder)
    assert not (made.folder / ".lock").exists()


def test_a_run_is_free_once_it_is_finished_and_reading_never_locks(tmp_path):
    made = Run.create(tmp_path, "a")
    assert Run.open(made.folder).status == "running"
    made.finish("interrupted")
    with Run.reopen(made.folder).recorded() as again:
        pass
    assert again.status == "done" and not (made.folder / ".lock").exists()


def test_two_processes_of_one_run_join_it_and_a_third_stays_out(tmp_path, monkeypatch):
    made = Run.create(tmp_path, "a")
    made.share()
    first = Run.join(made.folder)
    monkeypatch.setenv("RANK", "1")
    second = Run.join(made.folder)
    assert (first.writes, second.writes) == (True, False)
    made.release()
    with pytest.raises(InputError, match="still being worked on"):
        Run.reopen(made.folder)
    first.finish("interrupted")
    second.release()
    Run.reopen(made.folder).release()


def test_an_eval_folder_has_one_writer(tmp_path):
    store = Store(tmp_path / "e@0", {}, {}, True)
    with pytest.raises(InputError, match="still being worked on"):
        Store(tmp_path / "e@0", {}, {}, True)
    store.close()
    Store(tmp_path / "e@0", {}, {}, True).close()


ROWS = [
    {"question": f"{n}+1", "response": "2", "truth": "2", "reward": 1} for n in range(8)
]
COMMANDS = {
    "grade": ("out.jsonl", ["grade", "rows.jsonl", "--reward", "exact_match", "--out"]),
    "filter": (
        "out.jsonl",
        ["data", "filter", "rows.jsonl", "--min-reward", "1", "--out"],
    ),
    "split": (
        "train.jsonl",
        ["data", "split", "rows.jsonl", "--validation", "2", "--out"],
    ),
    "distill": (
        "out.jsonl",
        [
            "data",
            "distill",
            "rows.jsonl",
            "--teacher",
            "openai:m",
            "--write-batch",
            "b",
            "--out",
        ],
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_writes_rows_is_the_only_one(
    tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", ROWS)
    name, words = COMMANDS[command]
    words = [*words, "." if command == "split" else name]
    before = sorted(tmp_path.iterdir())

    def run() -> int:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        return stopped.value.code

    with lock(Path(name)):
        assert run() == 2
        said = capsys.readouterr().err
        assert re.search(
            rf"{name} is still being worked on\s+by process {os.getpid()}", said
        )
    assert sorted(tmp_path.iterdir()) == before, "nothing was written"
    assert run() == 0
    assert not list(tmp_path.glob("*.lock")), "given back with the command"


SLOW_REWARD = """
import time
from pathlib import Path

from alignkit import Reward, hookimpl


def patient(response: str) -> float:
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)
    return 1.0


@hookimpl
def align_rewards():
    yield Reward("patient", patient, deadline=60)
"""


def test_three_that_grade_into_one_file_make_each_row_once(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    rewards = tmp_path / "kit" / "rewards"
    rewards.mkdir(parents=True)
    (rewards / "patient.py").write_text(SLOW_REWARD)
    words = [
        "grade",
        "rows.jsonl",
        "--reward",
        "patient",
        "--kit",
        "kit",
        "--out",
        "out",
    ]
    command = [sys.executable, "-m", "alignkit.cli", *words]
    with ExitStack() as stack:
        three = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=tmp_path, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        while sum(process.poll() is not None for process in three) < 2:
            time.sleep(0.05)
        (winner,) = (process for process in three if process.poll() is None)
        (rewards / "go").touch()
        assert winner.wait(60) == 0
        lost = [process for process in three if process is not winner]
        for process in lost:
            assert process.returncode == 2
            said = " ".join(process.stderr.read().split())
            assert f"by process {winner.pid} on" in said
    assert len((tmp_path / "out").read_text().splitlines()) == len(ROWS)
    assert not list(tmp_path.glob(".*.lock"))
