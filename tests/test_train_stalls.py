"""Training that hangs ends as stalled with the culprit in its stacks, and goes on to end
as one that nobody disturbed.
"""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest
import yaml
from commands import align
from construction import BASES, merged
from test_train_resume import MODEL, left

from alignkit.run import Run, stacks

PLUGIN = """
import time
from pathlib import Path
from urllib.request import urlopen

from alignkit import Loss, Reward, Score, hookimpl

HERE = Path(__file__).parents[1]
calls = 0


def culprit(rank="0"):
    # the second step hangs, unless the cause is mended
    global calls
    calls += 1
    file = HERE / "hang"
    if calls < {nth} or not file.is_file():
        return
    if url := file.read_text():
        urlopen(url).read()
    import os
    if os.environ.get("RANK", "0") == {rank!r}:
        time.sleep(600)


def asks(response: str) -> Score:
    culprit()
    return Score(float(len(response) % 2 == 0))


def hanging(batch):
    culprit()
    return -batch.logps


@hookimpl
def align_rewards():
    yield Reward("asks", asks, where="process")


@hookimpl
def align_losses():
    yield Loss("hanging", hanging, methods=("sft",))
"""
STEPS = {
    "train": {"max_steps": 4, "save_steps": 1, "logging_steps": 1},
    "launch": {"grace_seconds": 1.0},
}
SFT = {"loss": {"name": "hanging"}, "launch": {"deadline_seconds": 6}}
GRPO = {"launch": {"deadline_seconds": {"grading": 3}}}


def made(home: Path, method: str, change: dict, nth: int, rank: str = "0") -> list:
    """What begins a run; it hangs at the `nth` call where there is a file `hang`."""
    plugins = home / "kit" / "plugins"
    plugins.mkdir(parents=True)
    text = PLUGIN.replace("{nth}", str(nth)).replace("{rank!r}", repr(rank))
    (plugins / "hangs.py").write_text(text)
    recipe = {"name": "hangs", "method": method, "model": MODEL}
    for part in (BASES[method], STEPS, change):
        recipe = merged(recipe, part)
    if "rewards" in recipe:
        recipe["rewards"] = {"asks": {}}
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["--kit", home / "kit"]


def stalls_and_goes_on(home: Path, kit: list, phase: str, at: int | None) -> str:
    """The stacks; `at`: the newest checkpoint when it stalled."""
    begin = ["run", home / "recipe.yaml", *kit, "--folder"]
    done = align(*begin, home / "run", cwd=home, check=3)
    run = Run.open(home / "run")
    assert run.status == "stalled"
    assert f"{phase} has not come back" in run.manifest["error"]
    assert "--resume" in done.err and stacks.NAME in done.err
    told = (run.folder / stacks.NAME).read_text()
    saved = {path.name for path in run.folder.glob("checkpoints/checkpoint-*")}
    assert saved == {f"checkpoint-{step}" for step in range(1, (at or 0) + 1)}
    (home / "kit" / "hang").unlink()
    align("run", "--resume", run.folder, *kit, cwd=home)
    align(*begin, home / "whole", cwd=home)
    assert left(run.folder) == left(home / "whole")
    return told


@pytest.mark.slow
def test_a_step_that_hangs(tmp_path: Path):
    kit = made(tmp_path, "sft", SFT, 3)
    (tmp_path / "kit" / "hang").write_text("")
    told = stalls_and_goes_on(tmp_path, kit, "forward_backward", 2)
    assert "in culprit" in told and "in hanging" in told


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.over.wait(300)


@pytest.mark.slow
def test_a_server_that_never_answers_a_reward(tmp_path: Path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads, server.over = True, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kit = made(tmp_path, "grpo", GRPO, 3)
        url = f"http://127.0.0.1:{server.server_port}/"
        (tmp_path / "kit" / "hang").write_text(url)
        try:
            told = stalls_and_goes_on(tmp_path, kit, "grading", 1)
        finally:
            server.over.set()
            server.shutdown()
    assert "in culprit" in told and "in urlopen" in told


@pytest.mark.slow
def test_a_rank_that_hangs_is_found_with_the_stacks_of_all(tmp_path: Path):
    kit = made(tmp_path, "sft", merged(SFT, {"launch": {"processes": 2}}), 3, "1")
    (tmp_path / "kit" / "hang").write_text("")
    told = stalls_and_goes_on(tmp_path, kit, "forward_backward", 2)
    ranks = {
        part.partition("\n")[0].partition("rank ")[2][:1]: part
        for part in told.split("\nprocess ")[1:]
    }
    assert "in culprit" in ranks["1"] and "in culprit" not in ranks["0"]
    assert "File" in ranks["0"]
