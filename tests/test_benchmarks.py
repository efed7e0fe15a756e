"""The benchmark that needs a GPU is rehearsed without one, so that it does not fail on the day it has one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_section_of_the_gpu_benchmark_is_rehearsed_or_says_why_not(tmp_path):
    report, log = tmp_path / "report.json", tmp_path / "log.txt"
    subprocess.run(
        [sys.executable, SCRIPT, "--tiny", "--output", report, "--log", log],
        check=True,
        timeout=280,
    )
    sections = json.loads(report.read_text())["sections"]
    failed = {
        name: found["failed"] for name, found in sections.items() if "failed" in found
    }
    assert not failed, log.read_text()[-4000:]
    for method in ("sft", "grpo", "dpo"):
        ours, theirs = sections[method]["alignkit"], sections[method]["trl"]
        # Both trained on the same rows with the same seed, or the ratio would compare two different things.
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-4)
        assert ours["rewards"] == theirs["rewards"]
    assert sections["reload"]["finite"]
