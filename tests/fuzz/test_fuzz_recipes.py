"""Mutated recipes end in one clear line that names the file, or are recipes still."""

from __future__ import annotations

import json

import pytest
from fuzzing import FULL, Tally, changed, fault, invoked, torn, written

MODEL = {"build": {"tokenizer": "bytes", "max_length": 256}}
ROWS = {"dataset": "jsonl", "path": "rows.jsonl"}
DATA = {"train": ROWS, "prompt": "question_only"}
TRAIN = {"max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no"}
DRAWN = {
    "generation": {"engine": "transformers", "max_new_tokens": 8, "temperature": 1.0},
    "rewards": {"exact_match": {}},
}
MATH = {"data": ROWS, "reward": "exact_match", "prompt": "question_only"}
SFT = {"name": "tiny", "method": "sft", "model": MODEL, "data": DATA, "train": TRAIN}
PAIRS = {"train": {"dataset": "jsonl", "path": "pairs.jsonl"}}
BASES = [
    {**SFT, "seed": 3, "evals": {"mine": {**MATH, "every": 1}}},
    {**SFT, "method": "dpo", "data": PAIRS, "output": {"root": "runs"}},
    {**SFT, **DRAWN, "method": "grpo", "train": {**TRAIN, "num_generations": 4}},
    {**SFT, **DRAWN, "method": "rloo", "waive": {}, "launch": {"processes": 1}},
    {
        **SFT,
        **DRAWN,
        "method": "expert_iteration",
        "expert_iteration": {"iterations": 1, "questions": 2, "rollouts": 2},
    },
    {
        "name": "both",
        "method": "pipeline",
        "stages": {
            "a": {k: v for k, v in SFT.items() if k != "name"},
            "b": {
                **{k: v for k, v in SFT.items() if k != "name"},
                "model": {"path": "stage:a"},
            },
        },
    },
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{i}+1?", "truth": str(i), "response": "2"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    pairs = [{"prompt": f"{i}?", "chosen": "a", "rejected": "b"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    return tmp_path


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=FULL)], ids=str)
@pytest.mark.timeout(1500)
def test_mutated_recipes_are_refused_in_one_line(count, folder):
    tally = Tally("recipes", count)
    dice = tally.dice
    for number in tally:
        base = dice.choice(BASES)
        if dice.random() < 0.7:
            content = written(changed(base, dice)).encode()
        else:
            content = torn(written(base).encode(), dice)
        (folder / "recipe.yaml").write_bytes(content)
        if number % 10 == 0:
            outcome = invoked(["diff", "recipe.yaml", "recipe.yaml"])
        else:
            outcome = invoked(["plan", "recipe.yaml"])
        said = fault(outcome, ["recipe.yaml:", "cannot work", "missing:"])
        tally.note(outcome, said, f"{number}", content[:1500])


@pytest.mark.parametrize("base", BASES, ids=lambda base: base["method"])
def test_the_recipes_that_are_mutated_are_whole(base, folder):
    (folder / "recipe.yaml").write_text(written(base))
    outcome = invoked(["plan", "recipe.yaml"])
    assert outcome.code == 0, outcome.said
