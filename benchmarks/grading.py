"""Grading beside math-verify's own parse and verify and the published grader, on the same
stored outputs, in one run, turn by turn.

    python benchmarks/grading.py outputs.jsonl                    # response, ground_truth
    python benchmarks/grading.py outputs.jsonl --published FILE   # a drgrpo_grader.py

Items per second, p50 and p99 per item: the peers one item after the other in this process,
alignkit's rewards in the worker pool (one worker per processor) and one by one. Each is the
best of three turns after a warm-up, also of every worker; no verdict is remembered. The ratios at the end are what
is promised.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignkit import Score

TURNS = 3
Grading = Callable[[str, str], float]
Rows = list[tuple[str, str]]
Figures = dict[str, float]
Way = Callable[[Rows], Figures]
LIBRARY = "math-verify, parse and verify"
# ours, in the pool as a run grades; the peer's; how many times as fast ours is to be
PROMISES = (
    ("drgrpo, fast", "published, fast", 20.0),
    ("drgrpo, slow", "published, slow", 4.0),
    ("math_verify", LIBRARY, 1.4),
    ("math", "drgrpo, slow", 1.0),
)


def rows_of(path: Path, limit: int) -> Rows:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["response"], row["ground_truth"]) for row in rows][:limit]


def best_of_turns(ways: dict[str, Way], rows: Rows) -> dict[str, Figures]:
    """Each in turn, so that a busy machine is busy for all of them."""
    best: dict[str, Figures] = {}
    for way in ways.values():
        way(rows[:50])
    for _ in range(TURNS):
        for name, way in ways.items():
            figures = way(rows)
            if name not in best or figures["seconds"] < best[name]["seconds"]:
                best[name] = figures
    return best


def one_by_one(function: Grading, rows: Rows) -> Figures:
    times, right = [], 0.0
    for row in rows:
        started = time.perf_counter()
        right += function(*row)
        times.append(time.perf_counter() - started)
    times.sort()
    return {
        "seconds": sum(times),
        "items/s": len(rows) / sum(times),
        "p50 ms": 1000 * times[len(times) // 2],
        "p99 ms": 1000 * times[int(0.99 * (len(times) - 1))],
        "right": right,
    }


def pooled(reward: Callable[..., Score], rows: Rows) -> Figures:
    from alignkit.grading import Grader

    with Grader() as grader:  # a fresh one, so that nothing is remembered
        grader.call(reward, rows, 5.0).result()  # every worker has started and imported
        grader._cache.clear()
        started = time.perf_counter()
        graded = grader.call(reward, rows, 5.0).result()
        seconds = time.perf_counter() - started
    times = sorted(g.seconds for g in graded)
    return {
        "seconds": seconds,
        "items/s": len(rows) / seconds,
        "p50 ms": 1000 * times[len(times) // 2],
        "p99 ms": 1000 * times[int(0.99 * (len(times) - 1))],
        "right": sum(g.score.reward for g in graded),
    }


def reward_of(reward: Callable[..., Score], response: str, truth: str) -> float:
    return reward(response, truth).reward


def math_verify(response: str, truth: str) -> float:
    from math_verify import parse, verify

    return float(verify(parse(f"${truth}$"), parse(response)))


def published(path: Path, form: str, fast: bool) -> Callable[[str, str], float]:
    spec = importlib.util.spec_from_file_location("published_grader", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    function = (
        module.question_only_reward_fn if form == "boxed" else module.r1_zero_reward_fn
    )
    return lambda response, truth: function(response, truth, fast=fast)["reward"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", help="JSONL with response and ground_truth"
    )
    parser.add_argument("--form", choices=["r1_zero", "boxed"], default="r1_zero")
    parser.add_argument("--limit", type=int, default=5000)
    parser.add_argument(
        "--published",
        type=Path,
        help="drgrpo_grader.py of the CS336 assignment or of its authors",
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.file is None and not os.environ.get("ALIGN_DATA"):
        print("no file given and ALIGN_DATA is not set: nothing to measure")
        return
    file = (
        given.file
        or Path(os.environ["ALIGN_DATA"]) / "rollouts_shibuki_grpo_train.jsonl"
    )
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from alignkit import grade, grade_math, grade_math_verify

    rows = rows_of(file, given.limit)

    rewards = {
        "drgrpo, fast": functools.partial(grade, form=given.form, fast=True),
        "drgrpo, slow": functools.partial(grade, form=given.form, fast=False),
        "math_verify": grade_math_verify,
        "math": grade_math,
    }
    peers: dict[str, Grading] = {LIBRARY: math_verify}
    if given.published:
        for speed in ("fast", "slow"):
            peers[f"published, {speed}"] = published(
                given.published, given.form, speed == "fast"
            )
    ways = {
        **{name: functools.partial(one_by_one, peer) for name, peer in peers.items()},
        **{name: functools.partial(pooled, reward) for name, reward in rewards.items()},
    }
    for name, reward in rewards.items():
        alone = functools.partial(reward_of, reward)
        ways[f"{name}, one by one"] = functools.partial(one_by_one, alone)
    found = best_of_turns(ways, rows)
    if given.json:
        print(
            json.dumps(
                {"file": str(file), "rows": len(rows), "results": found}, indent=2
            )
        )
        return
    print(f"{len(rows)} rows of {file}, {len(os.sched_getaffinity(0))} processors")
    for name, figures in found.items():
        rest = "  ".join(f"{key} {value:9.2f}" for key, value in figures.items())
        print(f"{name:32s} {rest}")
    for name, peer, least in PROMISES:
        if peer in found:
            ratio = found[name]["items/s"] / found[peer]["items/s"]
            print(f"{name} / {peer}: {ratio:.1f} (at least {least:g})")


if __name__ == "__main__":
    main()
