"""Commands on files of 1, 10 and 100 times as many rows: processor seconds, the memory of
the largest process, and what ten times the rows cost.

    python benchmarks/scale.py              x1, x10, x100: some ten minutes on two cores
    python benchmarks/scale.py --largest 10 --only "data "

Rows have about 1 kB. x100 are 200,000 rows, 50,000 of `eval --responses`, 100,000 samples
a side of `compare`, 2,000 files of rollouts with 20 rows each, and a row of 10 million
characters. At most linear: a growth of 10 or less; memory is to stay below 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SAID = "so it is then that number and the next one which is prime of first kind"
WORDS = SAID.split()
ROOT = Path(__file__).parent.parent
SIZES = (1, 10, 100)
MOST = 1_000_000_000  # bytes
PROVENANCE = {"plugin": "x", "data": "x", "prompt": "x", "graders": {}}

Arguments = list[str]
Making = Callable[[Path, int], Arguments]


def rows(folder: Path, count: int) -> str:
    draw = random.Random(count)
    path = folder / f"rows-{count}.jsonl"
    if path.exists():
        return str(path)
    with path.open("w") as file:
        for number in range(count):
            asked = f"Question {number}: what is {number} + {number % 97}?"
            said = " ".join(draw.choices(WORDS, k=190))
            row = {
                "question": asked,
                "prompt": asked,
                "response": f"{said} <answer> {number} </answer>",
                "truth": str(number + (number % 3 == 0)),
            }
            file.write(json.dumps(row) + "\n")
    return str(path)


def tokenizer(folder: Path) -> str:
    path = folder / "tokenizer"
    if not path.exists():
        # in a process of its own: a child's peak begins with the memory of its parent
        work = "import sys; from alignkit.models import build_tokenizer as build; "
        work += "build('bytes', 512).save_pretrained(sys.argv[1])"
        subprocess.run([sys.executable, "-c", work, str(path)], check=True)
    return str(path)


def on_rows(*command: str, count: int = 2000, out: str = "") -> Making:
    """A command with its file of rows behind it; `out` is written anew."""

    def make(folder: Path, times: int) -> Arguments:
        written = ["--out", str(folder / f"{times}-{out}")] if out else []
        said = [tokenizer(folder) if part == "TOKENIZER" else part for part in command]
        return [*said, rows(folder, times * count), *written]

    return make


def evaluated(folder: Path, times: int) -> Arguments:
    file = rows(folder, times * 500)
    command = ["eval", f"data:{file}", "--reward", "math", "--responses", file]
    return [*command, "--out", str(folder / f"eval-{times}")]


def compared(folder: Path, times: int) -> Arguments:
    return ["compare", *(side(folder, name, times * 1000) for name in ("a", "b"))]


def side(folder: Path, name: str, count: int) -> str:
    """A finished run with one eval of so many samples."""
    run = folder / f"{name}-{count}"
    home = run / "evals/math@1"
    home.mkdir(parents=True)
    config = {"name": name, "method": "grpo", "seed": 0, "loss": {"name": name}}
    (run / "recipe.yaml").write_text(json.dumps(config))
    manifest = {"name": name, "status": "done", "seed": 0, "versions": {"trl": "1"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    draw, right = random.Random(name), 0.0
    with (home / "samples.jsonl").open("w") as file:
        for number in range(count):
            reward = float(draw.random() < 0.4)
            right += reward
            status = "ok" if reward else "wrong"
            row = {"id": f"q{number}", "sample": 0, "reward": reward, "status": status}
            file.write(json.dumps(row) + "\n")
    value = right / count
    summary = {"eval": "math", "step": 1, "n": count, "metric": "accuracy"}
    summary |= {"value": value, "low": value, "high": value, "status": {}, "tally": {}}
    summary |= {"metrics": {"accuracy": value}, "provenance": PROVENANCE}
    (home / "summary.json").write_text(json.dumps(summary))
    logged = {"step": 1, "seconds": 1.0, "eval/math/accuracy": value}
    (run / "metrics.jsonl").write_text(json.dumps(logged) + "\n")
    return str(run)


def on_run(*command: str) -> Making:
    """A command with a run of rollout files behind it."""

    def make(folder: Path, times: int) -> Arguments:
        written = [str(folder / f"page-{times}.html")] if "--export" in command else []
        run = rollouts(folder, times * 20)
        return [command[0], run, *command[1:], *written]

    return make


def rollouts(folder: Path, steps: int) -> str:
    run = folder / f"run-{steps}"
    if run.exists():
        return str(run)
    (run / "rollouts").mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: large\nmethod: grpo\n")
    manifest = {"name": "large", "status": "done", "pid": 1, "method": "grpo"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    draw = random.Random(steps)
    with (run / "metrics.jsonl").open("w") as metrics:
        for step in range(1, steps + 1):
            logged = {"step": step, "train/reward": step / steps}
            metrics.write(json.dumps(logged) + "\n")
            with (run / f"rollouts/step-{step:06d}.jsonl").open("w") as file:
                for number in range(20):
                    file.write(json.dumps(rollout(step, number, draw)) + "\n")
    return str(run)


def rollout(step: int, number: int, draw: random.Random) -> dict[str, object]:
    right = (step * 7 + number) % 10 < 4
    said = " ".join(draw.choices(WORDS, k=190))
    return {
        "version": 1, "step": step, "group": number // 5, "sample": number % 5,
        "prompt": f"Question {step}-{number // 5}",
        "response": f"{said} <answer> {2 - right} </answer>",
        "truth": "1", "reward": float(right), "parts": {}, "rewards": {},
        "advantage": right - 0.4, "status": "ok" if right else "wrong",
        "stage": "exact", "explanation": "", "finish_reason": "stop", "tokens": 200,
        "source": None, "metadata": {},
    }  # fmt: skip


def long_row(folder: Path, times: int) -> Arguments:
    count = times * 100_000
    said = " ".join(random.Random(0).choices(WORDS, k=count // 2))[:count]
    path = folder / f"long-{times}.jsonl"
    path.write_text(json.dumps({"prompt": "q", "response": said}) + "\n")
    return ["data", "show", str(path), "--tokenizer", tokenizer(folder)]


COMMANDS: dict[str, Making] = {
    "grade": on_rows("grade", "--reward", "drgrpo"),
    "eval --responses": evaluated,
    "compare": compared,
    "data split": on_rows("data", "split", out="parts"),
    "data filter": on_rows("data", "filter", "--duplicates", "both", out="kept.jsonl"),
    "data stats": on_rows("data", "stats", "--tokenizer", "TOKENIZER"),
    "data show": on_rows("data", "show", "--tokenizer", "TOKENIZER"),
    "data show, one long row": long_row,
    "show RUN": on_run("show"),
    "check RUN": on_run("check"),
    "view --export": on_run("view", "--export"),
    "grade RUN": on_run("grade", "--reward", "drgrpo"),
}


def measured(arguments: Arguments, folder: Path) -> tuple[float, int]:
    """Processor seconds of a command and its children, bytes of the largest process."""
    with (folder / "said.txt").open("wb") as said:
        command = [sys.executable, "-m", "alignkit.cli", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # 1: what `check` found is worth stopping for
    if process.returncode not in (0, 1):
        last = (folder / "said.txt").read_text(errors="replace")[-2000:]
        sys.exit(f"{' '.join(arguments)} ended with {process.returncode}:\n{last}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, choices=SIZES, default=SIZES[-1])
    parser.add_argument("--only", default="", help="commands whose name holds this")
    given = parser.parse_args()
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"
    }  # fmt: skip
    print(f"{'':26}{'times':>6}{'CPU s':>9}{'growth':>8}{'peak MB':>9}{'growth':>8}")
    over = []
    for name, make in COMMANDS.items():
        if given.only not in name:
            continue
        before: tuple[float, int] | None = None
        for times in SIZES[: SIZES.index(given.largest) + 1]:
            with tempfile.TemporaryDirectory() as home:
                found = measured(make(Path(home), times), Path(home))
            old = before or found
            growth = [f"{new / was:.1f}" for new, was in zip(found, old, strict=True)]
            seconds, peak = found
            print(
                f"{name:26}{times:>6}{seconds:>9.1f}{growth[0]:>8}"
                f"{peak / 1e6:>9.0f}{growth[1]:>8}",
                flush=True,
            )
            over += [f"{name} x{times}"] * (peak > MOST)
            before = found
    print(f"above 1 GB: {', '.join(over) or 'none'}")


if __name__ == "__main__":
    main()
