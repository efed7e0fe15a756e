"""Damaged run folders, over each command that reads one."""

from __future__ import annotations

import random
import shutil
import time

import pytest
from fuzzing import BOUND, FULL, damaged, fault, invoked
from test_damaged_folders import write_run

COMMANDS = [
    ["show", "RUN", "--json"],
    ["show", "RUN", "--step", "2"],
    ["show", "RUN", "--eval", "EVAL"],
    ["check", "RUN", "--json"],
    ["diff", "RUN", "WHOLE", "--json"],
    ["compare", "RUN", "WHOLE", "--out", "compared", "--json"],
    ["view", "RUN", "--export", "page.html"],
    ["grade", "RUN", "--reward", "exact_match", "--json"],
    ["replay", "RUN", "--json"],
    ["run", "--resume", "RUN"],
    ["eval", "arithmetic", "--model", "RUN", "--out", "evals", "--json"],
]
ALSO = {"check": [1], "replay": [1], "grade": [1], "diff": [1], "eval": [1]}
EVALS = {"grpo": "arithmetic@4", "made": "math@2"}
KINDS = ("made", "grpo", "sft", "dpo", "pipeline", "expert_iteration", "sweep")


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=FULL)], ids=str)
@pytest.mark.timeout(2400)
def test_damaged_run_folders_are_refused_in_one_line(
    count, tmp_path, old_folder, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = {kind: old_folder(kind) for kind in KINDS[1:]}
    old_folder("start")
    whole["made"] = write_run(tmp_path / "made")
    dice, faults, slowest, codes = random.Random(count), [], 0.0, {}
    began = time.monotonic()
    for number in range(count):
        if time.monotonic() - began > BOUND:
            count = number
            break
        kind = dice.choice(KINDS)
        run = tmp_path / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole[kind], run)
        files = sorted(p for p in run.rglob("*") if p.is_file())
        top = [p for p in files if p.parent == run or "evals" in p.parts]
        file = dice.choice(top if dice.random() < 0.6 else files)
        how = damaged(file, dice)
        held = file.read_bytes()[:500] if file.is_file() else b""
        for command in COMMANDS if count > 100 else [COMMANDS[number % len(COMMANDS)]]:
            words = {
                "RUN": run.name,
                "WHOLE": "grpo",
                "EVAL": EVALS.get(kind, "arithmetic"),
            }
            words = [words.get(word, word) for word in command]
            outcome = invoked(words)
            codes[outcome.code] = codes.get(outcome.code, 0) + 1
            if outcome.code in (2, 3):
                slowest = max(slowest, outcome.seconds)
            if said := fault(outcome, ["damaged"], ALSO.get(command[0], ())):
                where = f"{kind}/{file.relative_to(run)} {how}"
                faults.append(f"{number} {' '.join(words)} {where}: {said}\n{held!r}")
                print(faults[-1])
    print(f"{count} run folders: {codes}, the slowest refusal {slowest:.2f} CPU s")
    assert not faults, f"{len(faults)} faults\n" + "\n\n".join(faults[:200])
