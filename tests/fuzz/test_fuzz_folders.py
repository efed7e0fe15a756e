"""Damaged run folders, over each command that reads one."""

from __future__ import annotations

import shutil

import pytest
from fuzzing import FULL, Tally, damaged, fault, invoked
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
    tally = Tally("run folders", count)
    dice = tally.dice
    for number in tally:
        kind = dice.choice(KINDS)
        run = tmp_path / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole[kind], run)
        files = sorted(p for p in run.rglob("*") if p.is_file())
        top = [p for p in files if p.parent == run or "evals" in p.parts]
        file = dice.choice(top if dice.random() < 0.6 else files)
        how = damaged(file, dice)
        held = file.read_bytes()[:500] if file.is_file() else b""
        for command in COMMANDS if tally.full else [COMMANDS[number % len(COMMANDS)]]:
            words = {
                "RUN": run.name,
                "WHOLE": "grpo",
                "EVAL": EVALS.get(kind, "arithmetic"),
            }
            words = [words.get(word, word) for word in command]
            outcome = invoked(words)
            said = fault(outcome, ["damaged"], ALSO.get(command[0], ()))
            where = f"{number} {' '.join(words)} {kind}/{file.relative_to(run)} {how}"
            tally.note(outcome, said, where, held)
