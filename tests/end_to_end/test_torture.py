"""`make torture` in short: hits at random moments leave what an undisturbed run leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "torture.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_that_are_hit_at_random_leave_what_undisturbed_ones_leave():
    few = ["--kills", "2", "--terms", "1", "--cases", "grpo", "--seconds", "60"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *few], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'kill': 2" in done.stdout and " 0 faults" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_two_that_race_one_works_and_the_other_says_which():
    few = ["--kills", "0", "--terms", "0", "--races", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *few], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("rows", "eval", "run"):
        assert f"race for {kind}: 2 of 2" in done.stdout
