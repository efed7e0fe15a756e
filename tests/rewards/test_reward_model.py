"""A reward model is a trained one, and is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignkit import InputError, MissingError, kits, models, plugins

REWARD = plugins.load([kits.builtin()]).get("reward", "reward_model").value.function


def test_a_language_model_without_a_trained_head_is_no_reward_model(tmp_path: Path):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = models.build_tokenizer("bytes", 64)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"no reward model: it has no trained score\.weight"
    ):
        REWARD(["x"], ["y"], model=str(tmp_path))


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path):
    with pytest.raises(MissingError, match="absent"):
        REWARD(["x"], ["y"], model=str(tmp_path / "absent"))
