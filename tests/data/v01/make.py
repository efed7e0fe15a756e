"""Make the folders that lie beside this file, with alignkit 0.1 (commit 9ad13d4).

    git worktree add --detach ../alignkit-0.1 9ad13d4
    python tests/data/v01/make.py ../alignkit-0.1 /tmp/empty

Everything runs in an empty folder. Its path, that of the checkout and that of the Python
environment are then replaced by {root}, {kit} and {python}, the host's name by {host};
`old_folder` of tests/conftest.py puts others in their place. Left out are the figures.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEAD = 4194304  # beyond the largest process id of Linux and macOS
TIME = 1_750_000_000  # of every file: an eval of 0.1 knows its model by size and time
KILLED = """\
import os, signal, sys
from alignkit.cli import main
from alignkit.run import Run
append = Run.append_metrics
def append_and_die(run, row):
    append(run, row)
    if row["step"] == 10:
        os.kill(os.getpid(), signal.SIGKILL)
Run.append_metrics = append_and_die
main(sys.argv[1:])
"""
RUNS = ("grpo", "rloo", "dpo", "expert_iteration", "pipeline")
LEFT_OUT = ("learning_curve.png", "compare", "README.md", ".lock")


def make(checkout: Path, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}

    def python(*arguments: str, code: int = 0) -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment)
        assert done.returncode == code, arguments

    def align(*arguments: str) -> None:
        python("-m", "alignkit.cli", *arguments)

    shutil.copytree(HERE / "written", folder / "written")
    (folder / "pairs.jsonl").write_text(pairs())
    (folder / "responses.jsonl").write_text(responses())
    align("run", "written/start.yaml", "--folder", "start")
    for name in RUNS:
        align("run", f"written/{name}.yaml", "--folder", name)
    align("run", "written/sft.yaml", "--folder", "undisturbed")
    shutil.copy(folder / "undisturbed/metrics.jsonl", folder / "undisturbed.jsonl")
    python("-c", KILLED, "run", "written/sft.yaml", "--folder", "sft", code=-9)
    align("sweep", "written/sweep.yaml", "--out", "sweeps")
    settle_times(folder)
    align("eval", "arithmetic", "--model", "grpo", "--limit", "8", "--out", "eval")
    stored = ("--responses", "responses.jsonl", "--out", "eval_stored")
    align("eval", "arithmetic", *stored)


def pairs() -> str:
    draw = random.Random(0)
    rows = []
    for _ in range(12):
        digits = [draw.randint(0, 9) for _ in range(4)]
        right, wrong = (f"</think> <answer>{sum(digits) + d}</answer>" for d in (0, 1))
        question = "+".join(map(str, digits)) + "=?"
        rows.append({"question": question, "chosen": right, "rejected": wrong})
    return lines(rows)


def responses() -> str:
    """Every second one is right."""
    draw = random.Random(1)
    rows = []
    for number in range(8):
        digits = [draw.randint(0, 9) for _ in range(4)]
        answer = f"</think> <answer>{sum(digits) + number % 2}</answer>"
        question = "+".join(map(str, digits)) + "=?"
        rows.append(
            {"question": question, "truth": str(sum(digits)), "response": answer}
        )
    return lines(rows)


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def settle_times(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (TIME, TIME))


def keep(checkout: Path, folder: Path) -> None:
    """Copy what was made beside this file, without what names this machine."""
    (sweep,) = (folder / "sweeps").iterdir()
    places = {f"sweeps/{sweep.name}": "sweep", str(folder): "{root}"}
    places |= {str(checkout): "{kit}", sys.prefix: "{python}"}
    for name in ("pairs", "responses", "undisturbed"):
        shutil.copy(folder / f"{name}.jsonl", HERE)
    folders = {name: folder / name for name in (*RUNS, "sft", "eval", "eval_stored")}
    folders |= {"start/model": folder / "start/model", "sweep": sweep}
    for name, made in folders.items():
        target = HERE / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for path in target.rglob("*"):
            if path.is_file():
                hide(path, places)


def hide(path: Path, places: dict[str, str]) -> None:
    content = path.read_bytes()
    for place, word in places.items():
        if path.suffix in (".json", ".jsonl", ".yaml", ".txt", ".log", ".md", ".csv"):
            content = content.replace(place.encode(), word.encode())
        assert place.encode() not in content, (path, place)
    if path.name == "manifest.json":
        manifest = json.loads(content)
        manifest |= {"pid": DEAD, "host": "{host}"}
        content = (json.dumps(manifest, indent=2) + "\n").encode()
    path.write_bytes(content)


if __name__ == "__main__":
    checkout, folder = (Path(given).resolve() for given in sys.argv[1:])
    make(checkout, folder)
    keep(checkout, folder)
