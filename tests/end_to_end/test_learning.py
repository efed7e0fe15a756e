"""Training really teaches: the quickstart's task and model, by every method, for three
seeds.

The SFT model that DPO and RLOO start from is trained once. Margins are wide: what is
held is that each method moves what it promises to move, on problems that were held out.
"""

from __future__ import annotations

import json
from itertools import accumulate

import pytest

from alignkit import checks, kits, plugins, recipe, records
from alignkit.cli import main
from alignkit.data import load_rows
from alignkit.recipe import to_yaml
from alignkit.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SEEDS = (0, 1, 2)
QUICKSTART = kits.builtin().root / "recipes/quickstart.yaml"
DATA = {
    "train": {"dataset": "arithmetic", "split": "train", "size": 25600},
    "prompt": "arithmetic",
}
GENERATION = {"engine": "transformers", "temperature": 1.0, "max_new_tokens": 24}
EXPERT_ITERATION = {
    "method": "expert_iteration",
    "model": {"path": "stage:sft"},
    "data": DATA,
    "rewards": {"drgrpo": {}},
    "generation": {**GENERATION, "stop": ["</answer>"]},
    "expert_iteration": {"iterations": 1, "questions": 256, "rollouts": 4},
    "train": {
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
    },
    "evals": {"arithmetic": {"before": True}},
}
RLOO = {
    "method": "rloo",
    "data": DATA,
    "rewards": {"drgrpo": {}},
    "loss": {"name": "rloo"},
    "advantage": {"name": "leave_one_out"},
    "generation": GENERATION,
    "train": {
        "max_steps": 80,
        "per_device_train_batch_size": 64,
        "num_generations": 8,
        "learning_rate": 3e-4,
        "warmup_steps": 5,
        "beta": 0.0,
        "save_strategy": "no",
    },
    "evals": {"arithmetic": {"before": True}},
}
DPO = {
    "method": "dpo",
    "loss": {"name": "dpo", "beta": 0.1},
    "train": {
        "max_steps": 80,
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-4,
        "warmup_steps": 5,
        "save_strategy": "no",
    },
    "evals": {"arithmetic": {"before": True}},
}


def align(config, folder, *more):
    """Run a recipe in this process."""
    file = folder.with_suffix(".yaml")
    file.write_text(to_yaml({"name": folder.name, **config}))
    with pytest.raises(SystemExit) as left:
        main(["run", str(file), "--folder", str(folder), *more])
    assert left.value.code == 0


def accuracies(folder):
    """The held-out accuracy at each eval of a run, in the order of the steps."""
    found = [
        json.loads(path.read_text())
        for path in folder.glob("evals/arithmetic@*/summary.json")
    ]
    return [
        summary["value"]
        for summary in sorted(found, key=lambda summary: summary["step"])
    ]


def healthy(folder):
    """No check accuses a run that does what it should, nor any of its stages."""
    reports = [checks.examine(record) for record in records.read(folder)]
    assert reports and sum(len(report.passed) for report in reports) >= len(reports)
    alarms = [(r.stage, f.title, f.evidence) for r in reports for f in r.alarms]
    assert alarms == []


def ends(folder, key, rows=8):
    """The mean of a metric over the first and over the last logged rows."""
    values = [row[key] for row in Run.open(folder).metrics() if key in row]
    assert len(values) >= 4 * rows
    return sum(values[:rows]) / rows, sum(values[-rows:]) / rows


@pytest.fixture(scope="module")
def sft(tmp_path_factory):
    """The quickstart's model after SFT."""
    folder = tmp_path_factory.mktemp("learning") / "start"
    align(recipe.load(QUICKSTART).resolved, folder, "--only", "sft")
    return str(folder / "stages/sft")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Worked answers, preferred to hasty ones whose sum may be wrong."""
    registry = plugins.load([kits.builtin()])
    rows = load_rows(
        {"dataset": "arithmetic", "size": 2000, "worked": 0.0}, registry, seed=5
    )
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    with file.open("w") as out:
        for row in rows:
            sums = list(
                accumulate(
                    int(digit)
                    for digit in row["question"].removesuffix("=?").split("+")
                )
            )
            chosen = f"{' '.join(map(str, sums))}</think> <answer>{sums[-1]}</answer>"
            pair = {
                "question": row["question"],
                "chosen": chosen,
                "rejected": row["response"],
            }
            out.write(json.dumps(pair) + "\n")
    return str(file)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pipeline_improves_at_every_stage(tmp_path, seed):
    quickstart = recipe.load(QUICKSTART).resolved
    sft, grpo = (quickstart["stages"][name] for name in ("sft", "grpo"))
    grpo = {**grpo, "model": {"path": "stage:expert_iteration"}}
    stages = {"sft": sft, "expert_iteration": EXPERT_ITERATION, "grpo": grpo}
    folder = tmp_path / "pipeline"
    align({**quickstart, "seed": seed, "stages": stages}, folder)
    found = [value for name in stages for value in accuracies(folder / "stages" / name)]
    print("seed", seed, "untrained, SFT, SFT again, expert iteration, GRPO:", found)
    untrained, after_sft, start, after_expert_iteration, after_grpo = found
    # the same model, prompts and greedy sampling
    assert untrained < 0.02 and start == after_sft
    assert after_sft > untrained + 0.05
    assert after_expert_iteration > after_sft + 0.1
    assert after_grpo > after_expert_iteration + 0.02 and after_grpo > 0.85
    report = (folder / "report.md").read_text()
    assert all(f"{value:.3f}" in report for value in found)
    healthy(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_raises_the_reward(sft, tmp_path, seed):
    align({**RLOO, "seed": seed, "model": {"path": sft}}, tmp_path / "rloo")
    reward, accuracy = (
        ends(tmp_path / "rloo", "train/reward"),
        accuracies(tmp_path / "rloo"),
    )
    print("seed", seed, "reward", reward, "accuracy", accuracy)
    assert reward[1] > reward[0] + 0.25
    assert accuracy[1] > accuracy[0] + 0.25
    healthy(tmp_path / "rloo")


@pytest.mark.parametrize("seed", SEEDS)
def test_dpo_raises_the_chosen_over_the_rejected(sft, pairs, tmp_path, seed):
    data = {"train": {"dataset": "jsonl", "path": pairs}, "prompt": "arithmetic"}
    align({**DPO, "seed": seed, "model": {"path": sft}, "data": data}, tmp_path / "dpo")
    margin, accuracy = (
        ends(tmp_path / "dpo", "train/rewards/margins"),
        accuracies(tmp_path / "dpo"),
    )
    print("seed", seed, "margin", margin, "accuracy", accuracy)
    assert margin[1] > margin[0] + 0.5
    assert accuracy[1] > accuracy[0] + 0.25
    healthy(tmp_path / "dpo")


KINDS = {
    "off-policy": {"loss": {"name": "grpo_clip"}, "train": {"num_iterations": 2}},
    "lora": {"model": {"lora": {"r": 8}}, "train": {"learning_rate": 3e-3}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_check_accuses_another_kind_of_healthy_run(sft, tmp_path, kind):
    change = {**KINDS[kind]}
    grpo = {**RLOO, "method": "grpo", "loss": {"name": "grpo_clip"}}
    grpo |= {"advantage": {"name": "group", "scale": "none"}}
    grpo["train"] = {**RLOO["train"], "max_steps": 40, **change.pop("train")}
    grpo["model"] = {"path": sft, **change.pop("model", {})}
    align({**grpo, **change}, tmp_path / kind)
    before, after = accuracies(tmp_path / kind)
    assert after > before + 0.1
    healthy(tmp_path / kind)
