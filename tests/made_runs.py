"""Run folders that tests make: healthy ones of every method, to be bent before they are
read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignkit import checks, records
from alignkit.run import append_rows, new_row, write_json

STEPS, GROUPS, SIZE = 60, 8, 4


def healthy_row(
    step: int, group: int, sample: int, dice: random.Random
) -> dict[str, Any]:
    """Right more and more often; responses differ in length and text."""
    right = dice.random() < 0.2 + 0.6 * step / STEPS
    words = " ".join(f"w{dice.randrange(1000)}" for _ in range(dice.randrange(5, 15)))
    truth = f"{dice.randrange(100, 1000)}"
    answer = truth if right else f"{dice.randrange(1000, 2000)}"
    return {
        "step": step,
        "group": group,
        "sample": sample,
        "prompt": f"Question {step}-{group}: <think>",
        "response": f"{words}</think> <answer>{answer}</answer>",
        "truth": truth,
        "reward": float(right),
        "parts": {"format_reward": 1.0, "answer_reward": float(right)},
        "advantage": float(right) - 0.5,
        "status": "ok" if right else "wrong",
        "stage": "exact",
        "finish_reason": "stop",
        "tokens": len(words.split()) + 6,
        "source": {"index": step * GROUPS + group, "id": None, "file": "made"},
    }


def healthy_metrics(step: int, method: str, dice: random.Random) -> dict[str, float]:
    share = step / STEPS
    row = {
        "train/loss": 2.0 - share + 0.05 * dice.random(),
        "train/grad_norm": 1.0 + dice.random(),
    }
    if method == "sft":
        row |= {"train/nll": 3.0 - 2 * share, "validation/loss": 3.0 - 2 * share}
    if method == "dpo":
        row |= {
            "train/loss": 0.69 - 0.3 * share,
            "train/rewards/chosen": 0.5 * share,
            "train/rewards/accuracies": 0.5 + 0.3 * share,
            "validation/loss": 0.69 - 0.2 * share,
            "train/nll": 2.0,
        }
    if method in ("grpo", "rloo"):
        row |= {
            "train/reward": 0.2 + 0.6 * share + 0.02 * dice.random(),
            "train/entropy": 1.0 - 0.5 * share,
            "train/distinct_responses": 4.0,
            "train/response_length": 20.0,
            "train/response_length_correct": 20.0,
            "train/response_length_wrong": 20.0,
            "train/clip_fraction": 0.02,
            "train/kl": 0.05,
            "train/sync_difference/mean": 0.001,
            "train/groups_without_variance": 0.2,
        }
    return row


class Made:
    """A run folder whose rows, metrics and evals a test may bend before it is read."""

    def __init__(self, folder: Path, method: str) -> None:
        self.folder, self.method, dice = folder, method, random.Random(0)
        online = method in ("grpo", "rloo", "expert_iteration")
        self.rows = [
            healthy_row(step, group, sample, dice)
            for step in range(1, STEPS + 1)
            for group in range(GROUPS)
            for sample in range(SIZE)
            if online
        ]
        self.metrics = [
            {"step": step, **healthy_metrics(step, method, dice)}
            for step in range(1, STEPS + 1)
        ]
        self.evals = {
            f"quiz@{step}": {
                "eval": "quiz",
                "step": step,
                "metric": "accuracy",
                "n": 500,
                "value": 0.2 + 0.6 * step / STEPS,
                "low": 0.15 + 0.6 * step / STEPS,
                "high": 0.25 + 0.6 * step / STEPS,
                "status": {"ok": 400, "wrong": 100},
                "provenance": {"judge": None},
            }
            for step in (0, 30, 60)
        }
        self.samples = [
            {
                "id": f"q{number}",
                "prompt": f"Asked {number}",
                "response": "x" * (number % 7),
            }
            for number in range(500)
        ]
        self.manifest = {
            "name": "made",
            "status": "done",
            "pid": 1,
            "rows": {"train": {"rows": 1000}},
            "model": {"vocabulary": 100},
            "effective": {"train.beta": 0.04, "train.num_generations": SIZE},
        }

    def report(self, *, live: bool = False) -> checks.Report:
        """What the checks say of the folder, written first."""
        self.write()
        (record,) = records.read(self.folder)
        return checks.examine(record, live=live)

    def write(self) -> None:
        """Write the folder."""
        write_json(self.folder / "manifest.json", self.manifest)
        (self.folder / "recipe.yaml").write_text(f"name: made\nmethod: {self.method}\n")
        (self.folder / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in self.metrics)
        )
        for step in sorted({row["step"] for row in self.rows}):
            append_rows(
                self.folder / "rollouts" / f"step-{step:06d}.jsonl",
                [new_row(row) for row in self.rows if row["step"] == step],  # type: ignore[arg-type]
            )
        for name, summary in self.evals.items():
            write_json(self.folder / "evals" / name / "summary.json", summary)
            append_rows(
                self.folder / "evals" / name / "samples.jsonl",
                [new_row(row) for row in self.samples],  # type: ignore[arg-type]
            )

    def late(self, steps: int = 20) -> Iterator[dict[str, Any]]:
        """The rows of the last steps."""
        return (row for row in self.rows if row["step"] > STEPS - steps)

    def every(self, **fields: Any) -> None:
        for row in self.rows:
            row.update(fields)

    def log(
        self, name: str, values: Mapping[int, float] | float, after: int = 0
    ) -> None:
        for row in self.metrics:
            if row["step"] > after:
                row[name] = values if isinstance(values, float) else values[row["step"]]
