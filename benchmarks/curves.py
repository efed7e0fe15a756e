"""Learning curves of the quickstart's methods beside a plain TRL script: same start,
data, settings and number of seeds.

The pipeline of the quickstart, with RLOO and DPO after its SFT, runs by `align run`;
stock.py trains the same four from the same random weights. Both are evaluated by
`align eval`. Writes docs/curves.json and docs/figures/curves.png.

    python benchmarks/curves.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
METHODS = {"sft": "loss", "grpo": "reward", "rloo": "reward", "dpo": "loss"}
PAIRS = 2560
SAMPLED = {
    "model": {"path": "stage:sft"},
    "data": {
        "train": {"dataset": "arithmetic", "split": "train", "size": 25600},
        "prompt": "arithmetic",
    },
    "evals": {"arithmetic": {"after": True}},
}
RECIPE: dict[str, Any] = {
    "extends": "quickstart.yaml",
    "name": "curves",
    "stages": {
        "sft": {"train": {"logging_steps": 1}},
        "rloo": {
            **SAMPLED,
            "method": "rloo",
            "rewards": {"drgrpo": {}},
            "loss": {"name": "trl"},
            "generation": {"engine": "transformers", "max_new_tokens": 24},
            "train": {
                "max_steps": 100,
                "per_device_train_batch_size": 64,
                "num_generations": 8,
                "learning_rate": 3e-4,
                "lr_scheduler_type": "linear",
                "warmup_steps": 5,
                "beta": 0.0,
                "save_strategy": "no",
            },
        },
        "dpo": {
            **SAMPLED,
            "method": "dpo",
            "data": {"train": {"dataset": "jsonl", "path": "pairs.jsonl"}},
            "loss": {"name": "trl"},
            "train": {
                "max_steps": 80,
                "per_device_train_batch_size": 32,
                "learning_rate": 3e-4,
                "lr_scheduler_type": "linear",
                "beta": 0.1,
                "save_strategy": "no",
            },
        },
    },
}
# What alignkit hands to TRL beside `train`: the recipe's other keys.
BESIDE = {
    "sft": {},
    "grpo": {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "max_completion_length": 24,
        "logging_steps": 1,
    },
    "rloo": {"max_completion_length": 24, "logging_steps": 1},
    "dpo": {"logging_steps": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        recipe = write_recipe(home)
        runs = {seed: measure(home / str(seed), recipe, seed) for seed in seeds}
    table = {method: summary(method, runs) for method in METHODS}
    (DOCS / "curves.json").write_text(json.dumps(table, indent=1) + "\n")
    draw(runs)
    for method, rows in table.items():
        print(method, {name: rows[name] for name in ("alignkit", "trl")})


def write_recipe(home: Path) -> Path:
    quickstart = HERE.parent / "recipes" / "quickstart.yaml"
    path = home / "curves.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"extends": str(quickstart)}))
    (home / "pairs.jsonl").write_text("".join(map(line, pairs())))
    return path


def rows(worked: float, size: int, seed: int) -> list[dict[str, str]]:
    from alignkit import data, kits, plugins

    spec = {"dataset": "arithmetic", "split": "train", "size": size, "worked": worked}
    return data.load_rows(spec, plugins.load([kits.builtin()]), seed=seed)


def prompt(row: dict[str, str]) -> str:
    return f"User: {row['question']}\nAssistant: <think>"


def pairs() -> list[dict[str, str]]:
    """The same sums, worked and guessed."""
    both = zip(rows(1.0, PAIRS, 0), rows(0.0, PAIRS, 0), strict=True)
    return [
        {"prompt": prompt(one), "chosen": one["response"], "rejected": two["response"]}
        for one, two in both
        if one["question"] == two["question"]
    ]


def line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def measure(home: Path, recipe: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Curve and held-out accuracy of every method, by who trained it."""
    home.mkdir()
    run = home / "run"
    align("run", str(recipe), "--folder", str(run), "--set", f"seed={seed}")
    stages = run / "stages"
    ours, stock = {}, {}
    for method in METHODS:
        ours[method] = {
            "curve": logged(stages / method, method),
            "accuracy": evaluated(stages / method / "model", home / f"{method}-ours"),
        }
        out = home / f"stock-{method}"
        start = stages / "sft" / "start" if method == "sft" else home / "stock-sft"
        settings = yaml.safe_load((stages / method / "recipe.yaml").read_text())[
            "train"
        ]
        data = home / f"{method}.jsonl"
        data.write_text("".join(map(line, training_rows(method, seed))))
        script(method, start, data, {**settings, **BESIDE[method], "seed": seed}, out)
        log = json.loads((out / "log.json").read_text())
        name = METHODS[method]
        stock[method] = {
            "curve": [entry[name] for entry in log if name in entry],
            "accuracy": evaluated(out, home / f"{method}-stock"),
        }
        print(seed, method, ours[method]["accuracy"], stock[method]["accuracy"])
    return {"alignkit": ours, "trl": stock}


def training_rows(method: str, seed: int) -> list[dict[str, str]]:
    if method == "dpo":
        return pairs()
    both = rows(0.4, 25_600, seed)
    if method == "sft":
        return [{"prompt": prompt(r), "completion": r["response"]} for r in both]
    return [{"prompt": prompt(row), "truth": row["truth"]} for row in both]


def logged(folder: Path, method: str) -> list[float]:
    name = f"train/{METHODS[method]}"
    metrics = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row[name] for row in metrics if name in row]


def evaluated(model: Path, out: Path) -> float:
    told = align(
        *("eval", "arithmetic", "--model", str(model), "--out", str(out), "--json")
    )
    return json.loads(told)[0]["value"]


def align(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "alignkit.cli", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def script(
    method: str, model: Path, data: Path, settings: dict[str, Any], out: Path
) -> None:
    words = (method, model, data, json.dumps(settings), out)
    subprocess.run(
        [sys.executable, str(HERE / "stock.py"), *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def summary(method: str, runs: dict[int, Any]) -> dict[str, Any]:
    """Held-out accuracy per seed, and how far the curves lie apart."""
    accuracy = {
        who: [runs[seed][who][method]["accuracy"] for seed in runs]
        for who in ("alignkit", "trl")
    }
    ends = {
        who: [statistics.fmean(runs[s][who][method]["curve"][-10:]) for s in runs]
        for who in accuracy
    }
    return {"metric": METHODS[method], **accuracy, "last ten steps": ends}


def draw(runs: dict[int, Any]) -> None:
    from matplotlib.figure import Figure

    from alignkit.report import looks

    with looks.style():
        figure = Figure(figsize=(12, 3.2), layout="constrained")
        panels = figure.subplots(1, len(METHODS))
        for axes, (method, metric) in zip(panels, METHODS.items(), strict=True):
            for who, colour in (("trl", looks.BASE), ("alignkit", looks.COLOURS[0])):
                curves = [smooth(runs[seed][who][method]["curve"]) for seed in runs]
                steps = range(1, len(curves[0]) + 1)
                low, high = (
                    [f(at) for at in zip(*curves, strict=True)] for f in (min, max)
                )
                mean = [statistics.fmean(at) for at in zip(*curves, strict=True)]
                axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
                axes.plot(steps, mean, color=colour, lw=1.6, label=who)
            axes.set_title(method.upper(), loc="left")
            axes.set_xlabel("training step")
            axes.set_ylabel(metric)
        panels[0].legend(frameon=False)
        note = f"mean and range of {len(runs)} seeds, over a window of 10 steps"
        looks.caption(figure, note, "")
        looks.save(figure, DOCS / "figures" / "curves", ["png"])


def smooth(values: list[float], width: int = 10) -> list[float]:
    return [
        statistics.fmean(values[max(0, i - width + 1) : i + 1])
        for i in range(len(values))
    ]


if __name__ == "__main__":
    main()
