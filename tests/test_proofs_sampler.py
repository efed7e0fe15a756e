"""Rollouts are drawn from the policy, whatever the model's own generation settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from alignkit import models
from alignkit.cli import cli
from alignkit.run import read_rows
from alignkit.train import proving


class Spec:
    tokenizer = "digits"
    hidden_size, layers, heads, intermediate_size = 16, 1, 2, 16
    init_std, max_length = 0.08, 64


OWN: list[dict[str, Any]] = [
    {},
    {"min_p": 0.99},
    {"temperature": 0.01, "top_p": 0.1, "top_k": 1},
    {"no_repeat_ngram_size": 1},
    {"suppress_tokens": [5, 6, 7, 8, 9, 10, 11]},
    {"begin_suppress_tokens": [5, 6, 7, 8]},
    {"bad_words_ids": [[5], [6], [7], [8]]},
    {"typical_p": 0.05},
    {"epsilon_cutoff": 0.5},
    {"eta_cutoff": 0.5},
    {"sequence_bias": [[[5], 50.0]]},
    {"forced_eos_token_id": 1},
    {"forced_bos_token_id": 7},
    {"repetition_penalty": 9.0},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"guidance_scale": 3.0},
    {"max_length": 8},
]


def rollouts(home: Path, own: dict[str, Any]) -> list[str]:
    model, tokenizer = models.build(Spec, 0)
    models.save(model, tokenizer, home / "model")
    file = home / "model" / "generation_config.json"
    settings = {**json.loads(file.read_text()), "do_sample": True, **own}
    file.write_text(json.dumps(settings))
    recipe = {
        "name": "drawn",
        "method": "grpo",
        "model": {"path": "model"},
        "data": {
            "train": {"dataset": "arithmetic", "split": "train", "size": 8},
            "prompt": "arithmetic",
        },
        "rewards": {"exact_match": {}},
        "generation": {"engine": "transformers", "max_new_tokens": 6},
        "train": {
            "max_steps": 1,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
            "save_strategy": "no",
        },
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["run", str(home / "recipe.yaml"), "--folder", str(home / "run")]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    file = next((home / "run" / "rollouts").glob("step-*.jsonl"))
    return [row["response"] for row in read_rows(file)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> list[str]:
    return rollouts(tmp_path_factory.mktemp("plain"), {})


@pytest.mark.parametrize("own", OWN, ids=json.dumps)
def test_the_models_own_settings_draw_nothing(tmp_path, drawn, own):
    assert rollouts(tmp_path, own) == drawn


def test_a_setting_that_nobody_stated_stops_the_run(tmp_path, monkeypatch):
    from alignkit.errors import InputError
    from alignkit.models import saving

    def left_in_force(model):
        model.generation_config.typical_p = 0.5

    monkeypatch.setattr("alignkit.models.set_aside_generation", left_in_force)
    assert saving.set_aside_generation is not left_in_force
    with pytest.raises(InputError, match=r"policy_sampler.*typical_p 0\.5"):
        rollouts(tmp_path, {})
    assert "policy_sampler" in proving.START
