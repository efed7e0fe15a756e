"""Run folders as `align run` writes them, made by formula."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

PROVENANCE = {
    "prompt": "p1",
    "grader": "g1",
    "data": "d1",
    "sampling": "s1",
    "judge": None,
    "engine": "transformers",
}


class Maker:
    """Writes run folders below `root`; every number comes from the seed and the
    arguments.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self,
        name="base",
        seed=0,
        accuracy=0.4,
        steps=20,
        status="done",
        provenance=None,
        recipe=None,
        **more,
    ):
        """One finished run of 20 logged steps with evals at the start, in the middle
        and at the end.
        """
        folder = self.root / f"{name}-s{seed}"
        folder.mkdir(parents=True)
        config = {"name": name, "method": "grpo", "seed": seed, **(recipe or {})}
        # JSON is YAML
        (folder / "recipe.yaml").write_text(json.dumps(config))
        manifest = {
            "name": name,
            "status": status,
            "seed": seed,
            "versions": {"trl": "1.16.0"},
            **more.get("manifest", {}),
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        rng = random.Random(f"{name}{seed}")
        gain, shift = accuracy - 0.1, rng.gauss(0, 0.02)
        rows = []
        for step in range(1, steps + 1):
            done = 1 - math.exp(-4 * step / steps)
            length = 260 + 240 * done * (1.6 if "constant" in name else 1.0)
            rows.append(
                {
                    "step": step,
                    "seconds": 31.0 * step + rng.random(),
                    "tokens": int(step * 256 * length),
                    "train/loss": -0.01 + rng.gauss(0, 0.003),
                    "train/reward": min(
                        1.0, max(0.0, 0.1 + (gain + shift) * done + rng.gauss(0, 0.02))
                    ),
                    "train/response_length": length + rng.gauss(0, 12),
                    "train/entropy": (
                        0.2 + 1.1 * math.exp(-3 * step / steps) + rng.gauss(0, 0.03)
                    ),
                    "train/grad_norm": 0.3 + 0.2 * done + abs(rng.gauss(0, 0.05)),
                }
            )
        for step in sorted({0, *range(steps // 4, steps + 1, max(1, steps // 4))}):
            value = self.eval(
                folder,
                step,
                0.1 + (gain + shift) * (1 - math.exp(-4 * step / steps)),
                provenance,
                more,
            )
            rows.append(
                {"step": step, "seconds": 31.0 * step + 1, "eval/math/accuracy": value}
            )
        with (folder / "metrics.jsonl").open("w") as file:
            file.writelines(
                json.dumps(row) + "\n"
                for row in sorted(rows, key=lambda row: row["step"])
            )
        return folder

    def eval(self, folder, step, accuracy, provenance=None, more=None, name="math"):
        """One eval with its samples; questions differ in difficulty, the same for every
        run.
        """
        more = more or {}
        ids = more.get("ids") or [f"q{i}" for i in range(more.get("questions", 150))]
        rng = random.Random(f"{folder.name}{step}{name}")
        rows = []
        for question in ids:
            easy = random.Random(question).gauss(0, 0.2)
            right = float(rng.random() < min(0.98, max(0.02, accuracy + easy)))
            rows.append(
                {
                    "id": question,
                    "sample": 0,
                    "reward": right,
                    "status": "ok" if right else "wrong",
                }
            )
        value = sum(row["reward"] for row in rows) / len(rows)
        target = folder / "evals" / f"{name}@{step}"
        target.mkdir(parents=True)
        (target / "samples.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        half = 1.96 * math.sqrt(value * (1 - value) / len(rows))
        summary = {
            "eval": name,
            "step": step,
            "n": len(rows),
            "metric": "accuracy",
            "value": value,
            "status": {},
            "tally": {},
        }
        summary |= {
            "low": value - half,
            "high": value + half,
            "metrics": {"accuracy": value, "unparsed": 0.01},
        }
        summary["provenance"] = {**PROVENANCE, **(provenance or {})}
        (target / "summary.json").write_text(json.dumps(summary))
        return value

    def ablation(self, seeds=(0, 1, 2), **more):
        """Three variants of a length normalisation over the seeds, the base first."""
        made = []
        for name, accuracy, loss in (
            ("sequence", 0.45, {"normalize": "sequence"}),
            ("constant", 0.75, {"normalize": "constant", "constant": 1024}),
            ("microbatch", 0.46, {"normalize": "microbatch"}),
        ):
            made += [
                self.run(name, seed, accuracy, recipe={"loss": loss}, **more)
                for seed in seeds
            ]
        return made


@pytest.fixture
def make(tmp_path):
    """A maker of run folders in a folder of its own."""
    return Maker(tmp_path / "runs")
