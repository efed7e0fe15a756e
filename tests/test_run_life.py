"""Whether a run's process lives: a run that was killed anywhere goes on anywhere, and
what cannot be told is refused until somebody says so.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alignkit.errors import InputError
from alignkit.run import Run, life


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


HERE = {"host": platform.node(), "boot": life.signs()["boot"]}
PARENT = {"pid": os.getppid(), "started": life._started(os.getppid())}
ELSEWHERE = {"host": "another", "boot": "another"}
# what the manifest says of the process, its heartbeat as seconds: whether it lives
CASES = {
    "here, at work": ({**HERE, **PARENT}, True),
    "here, gone": ({**HERE, "pid": 2**30, "started": "1"}, False),
    "here, its number given to another": ({**HERE, **PARENT, "started": "1"}, False),
    "before this machine was started": ({**HERE, **PARENT, "boot": "x"}, False),
    "elsewhere, a sign just now": ({**ELSEWHERE, **PARENT, "heartbeat": 5}, None),
    "elsewhere, silent": ({**ELSEWHERE, **PARENT, "heartbeat": 999}, False),
    "elsewhere, a clock ahead": ({**ELSEWHERE, **PARENT, "heartbeat": -99}, None),
    "elsewhere, no sign known": ({**ELSEWHERE, **PARENT}, None),
    "elsewhere, nonsense": ({**ELSEWHERE, **PARENT, "heartbeat": "soon"}, None),
    "another container, silent": (
        {**HERE, "host": "pod-1", "pid": 1, "heartbeat": 999},
        False,
    ),
    "of 0.1, here": ({"host": platform.node(), "pid": os.getppid()}, True),
    "of 0.1, elsewhere": ({"host": "another", "pid": 1}, None),
}


def at_work(case: str) -> tuple[dict, bool | None]:
    """A case, as of now."""
    manifest, living = CASES[case]
    seconds = manifest.get("heartbeat")
    beat = {"heartbeat": ago(seconds)} if isinstance(seconds, int) else {}
    return {**manifest, **beat}, living


@pytest.mark.parametrize("case", CASES)
def test_what_a_manifest_tells_of_its_process(case: str):
    manifest, living = at_work(case)
    assert life.lives(manifest) is living


def killed(root: Path, manifest: dict, *, locked: bool) -> Path:
    """A run whose process died without a word."""
    made = Run.create(root, "a")
    for name in ("started", "boot", "heartbeat"):
        made.manifest.pop(name)
    made.update(**manifest)
    if locked:
        made._held.forget()  # as by kill -9: the file stays
    else:
        made.release()
    return made.folder


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_run_is_taken_when_its_process_is_gone_or_somebody_says_so(
    tmp_path: Path, case: str, locked: bool
):
    """A free lock decides on the machine of its holder, also for its containers."""
    manifest, living = at_work(case)
    folder = killed(tmp_path, manifest, locked=locked)
    before = (folder / "manifest.json").read_bytes()
    if living is not False and not (locked and "here" in case):
        what = (
            "still being worked on" if living else "may still be worked on by process"
        )
        with pytest.raises(InputError, match=what):
            Run.reopen(folder)
        assert (folder / "manifest.json").read_bytes() == before
        if living:
            with pytest.raises(InputError, match="still being worked on"):
                Run.reopen(folder, take_over=True)
            return
    again = Run.reopen(folder, take_over=living is None)
    assert again.status == "running" and life.lives(again.manifest) is True
    again.release()


def test_a_lock_decides_among_containers_of_one_machine(tmp_path: Path):
    """Each has a host name and process numbers of its own."""
    pod = {**HERE, "host": "pod-1", "pid": 1, "started": "5", "heartbeat": ago(1)}
    Run.reopen(killed(tmp_path, pod, locked=True)).release()
    with pytest.raises(InputError, match="may still be worked on"):
        Run.reopen(killed(tmp_path, pod, locked=False))


WORK = """
import time
from pathlib import Path
from alignkit.run import Run, life
life.BEAT = 0.05
run = Run.create(Path("."), "a", Path("run"))
with run.recorded():
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_process_at_work_gives_signs_and_ends_when_its_run_was_taken_over(
    tmp_path: Path,
):
    process = subprocess.Popen(
        [sys.executable, "-c", WORK],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    signs = set()
    end = time.monotonic() + 30
    while len(signs) < 3 and time.monotonic() < end:
        signs.add(Run.open(tmp_path / "run").manifest["heartbeat"])
    assert len(signs) == 3
    assert Run.open(tmp_path / "run").status == "running"
    other = Run(tmp_path / "run", Run.open(tmp_path / "run").manifest)
    while process.poll() is None and time.monotonic() < end:
        other.update(pid=1, host="another")  # it may have been writing just now
        time.sleep(0.2)
    said = process.communicate()[1]
    assert process.returncode == 1 and "run was taken over" in said
    assert Run.open(tmp_path / "run").manifest["host"] == "another"
