"""Runs that are killed and stopped at random moments, until each is done: what they leave
must be what an undisturbed run leaves, to the bit.

    make torture        60 kill -9 and 20 SIGTERM, within half an hour on two cores

With --races, two processes race for a run, an eval folder and a file of rows.
With --fills, the disk of a run (a tmpfs: it needs root) is filled at a random moment.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml

from alignkit.run import Run

MODEL = {"build": {"tokenizer": "digits", "layers": 1, "hidden_size": 16, "heads": 2}}
DATA = {"train": {"dataset": "arithmetic", "size": 64}, "prompt": "arithmetic"}
EVALS = {"arithmetic": {"before": True, "every": 7, "limit": 8}}
# checkpoints and logs fall apart, so that some lie between two of the others
TRAIN = {
    "max_steps": 40,
    "save_steps": 3,
    "logging_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
}
ROLLOUTS = {
    "model": MODEL,
    "data": DATA,
    "evals": EVALS,
    "rewards": {"even": {}},
    "generation": {"max_new_tokens": 6},
    "train": {**TRAIN, "num_generations": 2, "max_steps": 16},
}
SFT = {"method": "sft", "model": MODEL, "data": DATA, "train": TRAIN, "evals": EVALS}
ITERATIONS = {
    "method": "expert_iteration",
    "model": MODEL,
    "data": DATA,
    "rewards": {"even": {}},
    "generation": {"max_new_tokens": 6},
    "expert_iteration": {"iterations": 2, "questions": 8, "rollouts": 2},
    "train": {"per_device_train_batch_size": 2, "save_steps": 1, "logging_steps": 1},
    "evals": {"arithmetic": {"before": True, "limit": 8}},
}
CASES: dict[str, dict[str, Any]] = {
    "sft": SFT,
    "dpo": {
        "method": "dpo",
        "model": MODEL,
        "data": {"train": {"dataset": "jsonl", "path": "pairs.jsonl"}},
        "train": TRAIN,
        "evals": EVALS,
    },
    "grpo": {"method": "grpo", **ROLLOUTS},
    "rloo": {"method": "rloo", **ROLLOUTS},
    "expert_iteration": ITERATIONS,
    "pipeline": {
        "method": "pipeline",
        "stages": {
            "sft": {**SFT, "train": {**TRAIN, "max_steps": 12}},
            "grpo": {
                "method": "grpo",
                **ROLLOUTS,
                "model": {"path": "stage:sft"},
                "train": {**ROLLOUTS["train"], "max_steps": 8},
            },
        },
    },
}
# An untrained model answers rightly by chance.
EVEN = """
from alignkit import Reward, Score, hookimpl


def even(response: str) -> Score:
    return Score(float(len(response) % 2 == 0))


@hookimpl
def align_rewards():
    yield Reward("even", even)
"""
# Holders that work until they are killed.
ENDLESS = """
import time

from alignkit import Eval, Reward, Sample, Score, hookimpl


def samples(rows, render):
    yield Sample("a", "1+1=", "2", {"question": "1+1="})


def score(sample: Sample, response: str) -> Score:
    time.sleep(600)
    return Score(1.0)


def endless(response: str) -> float:
    time.sleep(600)
    return 1.0


@hookimpl
def align_evals():
    data = {"dataset": "arithmetic", "size": 1}
    yield Eval(name="endless", samples=samples, score=score, data=data,
               prompt="arithmetic", source="made here")


@hookimpl
def align_rewards():
    yield Reward("endless", endless, deadline=600)
"""
SHORTEST = 2.0  # seconds: earlier, nothing but imports is hit


def start(home: Path, *words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "alignkit.cli", "run", "--kit", home, *words]
    with (home / "said").open("wb") as said:
        return subprocess.Popen(
            list(map(str, command)), stdout=said, stderr=said, start_new_session=True
        )


def finish(home: Path, *words: object) -> float:
    """Seconds that it took to the end."""
    began = time.monotonic()
    if start(home, *words).wait():
        raise SystemExit((home / "said").read_text()[-3000:])
    return time.monotonic() - began


def left(folder: Path) -> dict[str, Any]:
    """All that a run and the runs inside it leave, without times."""
    found: dict[str, Any] = {}
    for manifest in sorted(folder.rglob("manifest.json")):
        run = Run.open(manifest.parent)
        name = str(run.folder.relative_to(folder))
        found[name] = {"status": run.status, "metrics": timeless(run.metrics())}
        if "training" in run.manifest:
            found[name]["training"] = timeless([run.manifest["training"]])
    for pattern in ("step-*.jsonl", "samples.jsonl", "train.jsonl", "rollouts.jsonl"):
        for path in sorted(folder.rglob(pattern)):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[str(path.relative_to(folder))] = timeless(rows)
    for path in sorted(folder.rglob("model/*.safetensors")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = digest
    return found


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def timed(name: str) -> bool:
        return "time" in name or "second" in name

    return [{k: v for k, v in row.items() if not timed(k)} for row in rows]


def status(folder: Path) -> str:
    """Empty where its first files are not whole yet: then it is begun anew."""
    return Run.open(folder).status if (folder / "recipe.yaml").is_file() else ""


def disturb(process: subprocess.Popen[bytes], how: str, folder: Path) -> str:
    """Hit a process; what was wrong with the way it ended."""
    family = psutil.Process(process.pid).children(recursive=True)
    if how == "term":
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "SIGTERM did not end it within 60 seconds"
        # Python itself is gone already where a run is done, and its handlers too
        done = status(folder) == "done"
        if code not in ((0, 143, -signal.SIGTERM) if done else (143,)):
            return f"SIGTERM ended it with {code}, {status(folder)}"
    else:
        kill = os.killpg if how == "kill all" else os.kill
        kill(process.pid, signal.SIGKILL)
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    return f"{len(alive)} of its processes outlived it" if alive else ""


def filled(
    home: Path, file: Path, seconds: float, draw: random.Random
) -> tuple[dict[str, Any], list[str]]:
    """Run a recipe on a small disk that is filled at a random moment, and again once
    there is room.
    """
    small = home / "small"
    small.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(small)]
    subprocess.run(mount, check=True)
    try:
        folder, ballast, wrong = small / "run", small / "ballast", []
        process = start(home, file, "--folder", folder)
        moment = draw.uniform(SHORTEST, max(seconds * 0.9, SHORTEST + 1))
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError), ballast.open("wb", 0) as full:
                while full.write(bytes(65536)):
                    pass
            code = process.wait()
            said = (home / "said").read_text()
            if code and (code != 3 or "disk is full" not in " ".join(said.split())):
                wrong.append(f"full after {moment:.1f} s, {code}: {said[-1500:]}")
            if "Traceback" in said:
                wrong.append(f"full after {moment:.1f} s: a traceback")
            ballast.unlink()
        print(f"  full after {moment:.1f} of {seconds:.1f} s: exit {code}", flush=True)
        if not status(folder):
            subprocess.run(["rm", "-rf", folder], check=True)
            finish(home, file, "--folder", folder)
        elif status(folder) != "done":
            finish(home, "--resume", folder)
        return left(folder), wrong
    finally:
        subprocess.run(["umount", str(small)], check=True)


def races(home: Path, trials: int, draw: random.Random) -> list[str]:
    """Two processes for one run, one eval folder and one file of rows: the one that
    works is killed, and the next two find what it left.
    """
    (home / "evals").mkdir()
    for room in ("rewards", "evals"):
        (home / room / "endless.py").write_text(
            ENDLESS.partition("@hookimpl")[0]
            + "@hookimpl"
            + ENDLESS.split("@hookimpl")[2 if room == "rewards" else 1]
        )
    row = {"question": "1+1=", "response": "2", "truth": "2", "id": "a", "sample": 0}
    (home / "rows.jsonl").write_text(json.dumps(row) + "\n")
    rows, out = home / "rows.jsonl", home / "out.jsonl"
    file, run = home / "raced.yaml", home / "raced"
    recipe = {**CASES["grpo"], "rewards": {"endless": {}}, "evals": {}}
    file.write_text(yaml.safe_dump({"name": "raced", **recipe}))
    first = start(home, file, "--folder", run)
    while not (run / "recipe.yaml").is_file() and first.poll() is None:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    raced = {
        "rows": ["grade", rows, "--reward", "endless", "--out", out],
        "eval": ["eval", "endless", "--responses", rows, "--out", home / "evaluated"],
        "run": ["run", "--resume", run],
    }
    wrong = []
    for name, words in raced.items():
        good = 0
        for trial in range(trials):
            fault = race(home, [*words, "--kit", home], draw.uniform(0, 0.1))
            good += not fault
            wrong += [f"race for {name}, {trial}: {fault}"] if fault else []
        print(f"race for {name}: {good} of {trials}", flush=True)
    return wrong


def race(home: Path, words: list[object], apart: float) -> str:
    """Start a command twice; what was wrong."""
    command = [sys.executable, "-m", "alignkit.cli", *map(str, words)]
    two = []
    for number in range(2):
        with (home / f"said-{number}").open("wb") as said:
            two.append(
                subprocess.Popen(
                    command, stdout=said, stderr=said, start_new_session=True
                )
            )
        time.sleep(0 if number else apart)
    end = time.monotonic() + 120
    while all(one.poll() is None for one in two) and time.monotonic() < end:
        time.sleep(0.05)
    ended = [number for number, one in enumerate(two) if one.poll() is not None]
    time.sleep(0.2)
    alive = [one for one in two if one.poll() is None]
    for one in alive:
        os.killpg(one.pid, signal.SIGKILL)
        one.wait()
    if len(alive) != 1:
        said = (home / "said-0").read_text() + (home / "said-1").read_text()
        return f"{len(alive)} work: {said[-800:]}"
    (number,) = ended
    said = " ".join((home / f"said-{number}").read_text().split())
    if two[number].returncode != 2 or f"by process {alive[0].pid} " not in said:
        return f"the other left with {two[number].returncode}: {said[-800:]}"
    return ""


def torture(
    home: Path,
    file: Path,
    folder: Path,
    seconds: float,
    hits: list[str],
    draw: random.Random,
) -> tuple[Counter[str], list[str]]:
    """Run a recipe to its end, hit so many times; the hits that struck it at work."""
    done: Counter[str] = Counter()
    wrong = []
    for how in hits:
        begun = status(folder) != ""
        if status(folder) == "done":
            break
        if not begun:  # hit before its first files were there
            subprocess.run(["rm", "-rf", folder], check=True)
        what = ["--resume", folder] if begun else [file, "--folder", folder]
        process = start(home, *what)
        moment = draw.uniform(SHORTEST, max(seconds * 0.8, SHORTEST + 1))
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            fault = disturb(process, how, folder)
            done[how.split()[0]] += 1
            wrong += [f"{how} after {moment:.1f} s: {fault}"] if fault else []
            continue
        if code:
            said = (home / "said").read_text()[-2000:]
            return done, [*wrong, f"it left with {code}: {said}"]
    if not status(folder):
        subprocess.run(["rm", "-rf", folder], check=True)
        finish(home, file, "--folder", folder)
    elif status(folder) != "done":
        finish(home, "--resume", folder)
    return done, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--fills", type=int, default=0, help="for each case")
    parser.add_argument("--races", type=int, default=0, help="for each kind")
    parser.add_argument("--seconds", type=float, default=1800.0, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    given = parser.parse_args()
    draw, began = random.Random(given.seed), time.monotonic()
    wanted = Counter(kill=given.kills, term=given.terms)
    total: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "rewards").mkdir()
        (home / "rewards" / "even.py").write_text(EVEN)
        pairs = [
            {"prompt": f"1+{i}=?", "chosen": str(i + 1), "rejected": "0"}
            for i in range(8)
        ]
        (home / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
        if given.races:
            faults += races(home, given.races, draw)
        for case in given.cases if given.fills else ():
            file = home / f"{case}.yaml"
            file.write_text(
                yaml.safe_dump({"name": case, **CASES[case]}, sort_keys=False)
            )
            took = finish(home, file, "--folder", home / f"{case}-whole")
            expected = left(home / f"{case}-whole")
            for _ in range(given.fills):
                there, wrong = filled(home, file, took, draw)
                names = expected | there
                wrong += [n for n in names if expected.get(n) != there.get(n)]
                print(f"{case}: full disk {wrong or 'as undisturbed'}", flush=True)
                faults += [f"{case}: {text}" for text in wrong]
        whole: dict[str, tuple[float, dict[str, Any]]] = {}
        round_ = 0
        while total != wanted and time.monotonic() - began < given.seconds:
            case = given.cases[round_ % len(given.cases)]
            file = home / f"{case}.yaml"
            if case not in whole:
                file.write_text(
                    yaml.safe_dump({"name": case, **CASES[case]}, sort_keys=False)
                )
                took = finish(home, file, "--folder", home / case)
                whole[case] = took, left(home / case)
            took, expected = whole[case]
            open_ = [
                how for how in ("kill", "term") for _ in range((wanted - total)[how])
            ]
            hits = draw.sample(open_, min(6, len(open_)))
            hits = [
                f"kill {draw.choice(['all', 'one'])}" if h == "kill" else h
                for h in hits
            ]
            folder = home / f"{case}-{round_}"
            done, wrong = torture(home, file, folder, took, hits, draw)
            total += done
            there = left(folder)
            wrong += [n for n in expected | there if expected.get(n) != there.get(n)]
            print(
                f"{case}: {dict(done)} {wrong or 'as undisturbed'}",
                flush=True,
            )
            faults += [f"{case}: {text}" for text in wrong]
            round_ += 1
    print(f"{dict(total)} in {time.monotonic() - began:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
