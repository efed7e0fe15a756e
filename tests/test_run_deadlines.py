"""What hangs is found within its deadline, with the stacks of every process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignkit.run import Run, deadlines, stacks

WORK = """
import os, sys, time
from pathlib import Path
from alignkit.errors import StallError
from alignkit.run import Run, deadlines, stopping
deadlines.TICK, deadlines.HELD = 0.1, 0.5
stopping.PATIENCE = 1.0
stopping.install()

def culprit():
    {hang}

run = Run.create(Path(), "hangs", Path("run"))
try:
    with run.recorded(), deadlines.watched(run, {stated}, 0.5, "GO ON"):
        {before}
        with deadlines.phase("grading"):
            culprit()
except StallError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
HANGS = {
    "in Python": "while True: pass",
    "asleep": "time.sleep(60)",
    "in C": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "deaf": """
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass""",
}


def ended(folder: Path, hang: str, stated: object = 0.5, before: str = "pass"):
    code = WORK.format(hang=hang, stated=stated, before=before)
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("stated", [0.5, {"grading": 0.5}])
def test_what_hangs_ends_as_stalled_with_its_stacks(
    tmp_path: Path, hang: str, stated: object
):
    done = ended(tmp_path, HANGS[hang], stated)
    run = Run.open(tmp_path / "run")
    assert (done.returncode, run.status) == (3, "stalled"), done.stderr
    for said in (done.stderr, run.manifest["error"]):
        assert "grading has not come back" in said and "GO ON" in said
        assert str(tmp_path / "run" / stacks.NAME) in said or "run/stacks.txt" in said
    assert "in culprit" in (run.folder / stacks.NAME).read_text()


def test_what_holds_the_interpreter_is_found_too(tmp_path: Path):
    done = ended(tmp_path, "import re; re.match('(a+)+$', 'a' * 60 + 'b')")
    run = Run.open(tmp_path / "run")
    assert done.returncode and run.status == "stalled"
    assert "in culprit" in (run.folder / stacks.NAME).read_text()


def test_the_stacks_of_children_stand_under_their_names(tmp_path: Path):
    child = "import sys, time; from alignkit.run import stacks; stacks.answer()"
    child += "; exec('def beside(): print(flush=True), time.sleep(60)'); beside()"
    before = (
        "import subprocess; started = [subprocess.Popen(x, stdout=subprocess.PIPE) for"
        f" x in ([sys.executable, '-c', {child!r}], ['sleep', '60'])];"
        " started[0].stdout.readline(); print(*(p.pid for p in started), flush=True)"
    )
    done = ended(tmp_path, HANGS["deaf"], before=before)
    told = (tmp_path / "run" / stacks.NAME).read_text()
    known, unknown = (f"process {pid}: " for pid in done.stdout.split())
    own, after = told.split(known)
    assert "in culprit" in own and "in beside" in after
    assert "tells no stack" in after.split(unknown)[1]
    for pid in done.stdout.split():
        status = Path(f"/proc/{pid}/status")
        assert not status.exists() or "Z (zombie)" in status.read_text()


def test_what_comes_back_is_not_disturbed(tmp_path: Path):
    """Ten times as long as the first, behind a phase of its own within it."""
    within = """
        with deadlines.phase("eval"):
            with deadlines.phase("generation"):
                time.sleep(1.0)"""
    done = ended(tmp_path, "time.sleep(0.2)", {"grading": 0.9, "eval": 0.9}, within)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / stacks.NAME).exists()
    assert Run.open(tmp_path / "run").status == "done"


def test_a_deadline_is_learned_and_generous(tmp_path: Path):
    run = Run.create(tmp_path, "learns")
    with deadlines.watched(run, None, 1.0, "GO ON"), deadlines.phase("eval"):
        watch = deadlines._watch
        (phase,) = watch.open
        assert watch.allowed(phase) == deadlines.FIRST
        for longest, allowed in ((1.0, 1200.0), (600.0, 12000.0)):
            phase.began = time.monotonic() - longest
            deadlines.again()
            assert watch.allowed(phase) == pytest.approx(allowed, rel=0.01)
            assert watch.allowed(phase) > 10 * longest
        phase.began = time.monotonic() - 1
        deadlines.again()  # a short one does not shorten it
        assert watch.allowed(phase) == pytest.approx(12000.0, rel=0.01)


def test_a_stalled_run_is_gone_on_with(tmp_path: Path):
    ended(tmp_path, HANGS["asleep"])
    run = Run.reopen(tmp_path / "run")
    assert run.status == "running" and not (run.folder / stacks.NAME).exists()
    run.finish("done")
    told = json.loads((run.folder / "manifest.json").read_text())
    assert told["status"] == "done" and told["error"] is None
