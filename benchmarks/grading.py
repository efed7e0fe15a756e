"""Grading beside math-verify's own parse and verify, on the same stored outputs, in one
run.

Items per second and p50/p99 per item: math-verify one item after the other in this
process; alignkit's rewards in the worker pool (the default: one worker per processor)
and one item after the other in this process.

    python benchmarks/grading.py outputs.jsonl                  # fields: response,
    ground_truth python benchmarks/grading.py outputs.jsonl --published FILE # a copy of
    drgrpo_grader.py, where there is one

Each figure is the best of three turns, after a warm-up over 50 items; verdicts are not
cached between turns.
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

TURNS = 3


def rows_of(path: Path, limit: int) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["response"], row["ground_truth"]) for row in rows][:limit]


def one_by_one(
    function: Callable[[str, str], float], rows: list[tuple[str, str]]
) -> dict[str, float]:
    for row in rows[:50]:
        function(*row)
    best: dict[str, float] = {}
    for _ in range(TURNS):
        times, right = [], 0.0
        for row in rows:
            started = time.perf_counter()
            right += function(*row)
            times.append(time.perf_counter() - started)
        times.sort()
        if not best or sum(times) < best["seconds"]:
            best = {
                "seconds": sum(times),
                "items/s": len(rows) / sum(times),
                "p50 ms": 1000 * times[len(times) // 2],
                "p99 ms": 1000 * times[int(0.99 * (len(times) - 1))],
                "right": right,
            }
    return best


def pooled(function: Callable, rows: list[tuple[str, str]]) -> dict[str, float]:
    from alignkit.grading import Grader

    best: dict[str, float] = {}
    for _ in range(TURNS):
        with Grader() as grader:  # a fresh one, so that nothing is remembered
            grader.call(function, [*rows[:50], ("", "5")], 5.0).result()
            grader._cache.clear()
            started = time.perf_counter()
            graded = grader.call(function, rows, 5.0).result()
            seconds = time.perf_counter() - started
        times = sorted(g.seconds for g in graded)
        if not best or seconds < best["seconds"]:
            best = {
                "seconds": seconds,
                "items/s": len(rows) / seconds,
                "p50 ms": 1000 * times[len(times) // 2],
                "p99 ms": 1000 * times[int(0.99 * (len(times) - 1))],
                "right": sum(g.score.reward for g in graded),
            }
    return best


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
    from alignkit import grade, grade_math_verify

    rows = rows_of(file, given.limit)
    found = {"math-verify, parse and verify": one_by_one(math_verify, rows)}
    if given.published:
        for fast in (True, False):
            name = f"published grader, fast={fast}"
            found[name] = one_by_one(published(given.published, given.form, fast), rows)
    for fast in (True, False):
        reward = functools.partial(grade, form=given.form, fast=fast)
        found[f"alignkit, fast={fast}, in the pool"] = pooled(reward, rows)
    reward = functools.partial(grade, form=given.form)
    found["alignkit, fast=True, one by one"] = one_by_one(
        lambda r, t: reward(r, t).reward, rows
    )
    found["alignkit's math_verify, in the pool"] = pooled(grade_math_verify, rows)
    if given.json:
        print(
            json.dumps(
                {"file": str(file), "rows": len(rows), "results": found}, indent=2
            )
        )
        return
    print(f"{len(rows)} rows of {file}, {len(os.sched_getaffinity(0))} processors")
    base = found["math-verify, parse and verify"]["items/s"]
    for name, figures in found.items():
        rest = "  ".join(f"{key} {value:9.2f}" for key, value in figures.items())
        print(f"{name:40s} {rest}  x{figures['items/s'] / base:.1f}")


if __name__ == "__main__":
    main()
