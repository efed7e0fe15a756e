"""Rollouts are drawn from the policy: no setting of the model's own acts on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from alignkit import models
from alignkit.train.proving.texts import prove_sampler

IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version")
FIELDS = sorted(
    name
    for name in GenerationConfig().to_dict()
    if name not in IDS and not name.startswith("_")
)
WORDS = 32


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    return LlamaForCausalLM(config)


def subject(model: Any) -> Any:
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(unwrap_model=lambda one: one),
        model=model,
        use_vllm=False,
        generation_config=GenerationConfig(do_sample=True, max_new_tokens=4),
    )
    return SimpleNamespace(trainer=trainer, config=SimpleNamespace(train={}))


@pytest.mark.parametrize("field", FIELDS)
def test_every_generation_setting_of_a_model_is_seen_and_put_out_of_force(
    model: Any, field: str
) -> None:
    model.generation_config = GenerationConfig(eos_token_id=3)
    setattr(model.generation_config, field, 0.375)
    assert field in prove_sampler(subject(model)).fault
    models.set_aside_generation(model)
    assert prove_sampler(subject(model)).fault == ""
    assert model.generation_config.eos_token_id == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"min_p": 0.99},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(4, WORDS))},
        {"begin_suppress_tokens": list(range(4, WORDS))},
        {"bad_words_ids": [[n] for n in range(4, WORDS)]},
        {"typical_p": 0.01},
        {"epsilon_cutoff": 0.9},
        {"eta_cutoff": 0.9},
        {"sequence_bias": [[[5], 100.0]]},
        {"forced_eos_token_id": 3},
        {"repetition_penalty": 50.0},
        {"encoder_repetition_penalty": 50.0},
        {"exponential_decay_length_penalty": (1, 50.0)},
        {"top_h": 0.1},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_rollouts_are_those_of_a_model_without_settings(
    model: Any, setting: dict[str, Any]
) -> None:
    def drawn(own: dict[str, Any]) -> list[list[int]]:
        model.generation_config = GenerationConfig(
            eos_token_id=3, pad_token_id=0, **own
        )
        models.set_aside_generation(model)
        torch.manual_seed(1)
        stated = GenerationConfig(do_sample=True, max_new_tokens=8, top_k=0)
        ids = torch.full((4, 3), 7)
        mask = torch.ones_like(ids)
        return model.generate(
            ids, attention_mask=mask, generation_config=stated
        ).tolist()

    assert drawn(setting) == drawn({})
