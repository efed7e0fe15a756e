"""What `plan` and `run` warn of, by an example and a neighbour that is silent."""

from __future__ import annotations

import construction
import pytest
import torch

from alignkit import kits, plugins
from alignkit.recipe import rules
from alignkit.recipe.rules.warnings import moved

BF16 = {"model": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    registry = plugins.load([kits.builtin()])
    return construction.Workshop(tmp_path_factory.mktemp("warnings"), registry)


def warned(workshop, method, change, **known):
    config = workshop.load(method, change).config
    return {".".join(key) for key, _ in rules.warnings(config, rules.Facts(**known))}


def at(rate: float, **fields):
    return {**BF16, "train": {"learning_rate": rate, **fields}}


@pytest.mark.parametrize(
    ("method", "change", "known", "key"),
    [
        ("sft", at(1e-5), {}, "model.dtype"),
        ("dpo", at(1e-6), {}, "model.dtype"),
        ("grpo", at(1e-5, optim="lion_32bit"), {}, "model.dtype"),
        ("expert_iteration", at(2e-5), {}, "model.dtype"),
        ("sft", {"train": {"learning_rate": 1e-5}}, {"gpus": 1}, "model.dtype"),
        ("grpo", {"generation": {"top_p": 0.8}}, {}, "generation.top_p"),
        ("rloo", {"generation": {"top_k": 50}}, {}, "generation.top_k"),
        ("grpo", {"generation": {"min_p": 0.1}}, {}, "generation.min_p"),
        (
            *("grpo", {"generation": {"repetition_penalty": 1.1}}, {}),
            "generation.repetition_penalty",
        ),
        (
            "sft",
            {
                "model": {
                    "build": None,
                    "path": "a/b",
                    "quantize": {"load_in_4bit": True},
                    "lora": {"r": 2},
                },
                "evals": {"arithmetic": {"before": True}},
            },
            {"gpus": 0},
            "evals.arithmetic.before",
        ),
    ],
)
def test_a_warning_names_the_key(workshop, method, change, known, key):
    assert warned(workshop, method, change, **known) == {key}


@pytest.mark.parametrize(
    ("method", "change", "known"),
    [
        ("sft", at(1e-3), {}),
        ("sft", at(1e-5, optim="sgd"), {}),
        ("sft", at(1e-5, optim="adamw_anyprecision"), {}),
        ("sft", {**at(1e-5), "model": {"dtype": "float32"}}, {"gpus": 1}),
        ("sft", {**at(1e-5), "model": {"dtype": "bfloat16", "lora": {"r": 2}}}, {}),
        ("sft", {"train": {"learning_rate": 1e-5}}, {"gpus": 0}),
        ("grpo", {"generation": {"temperature": 0.7}}, {}),
        ("sft", {"evals": {"arithmetic": {"sampling": {"top_p": 0.8}}}}, {}),
    ],
)
def test_a_neighbour_is_silent(workshop, method, change, known):
    assert warned(workshop, method, change, **known) == set()


@pytest.mark.parametrize("rate", [1e-6, 3e-6, 1e-5, 2e-5, 7e-5, 3e-4])
@pytest.mark.parametrize("std", [0.02, 0.08])
def test_the_share_is_that_of_weights_that_bfloat16_moves(rate, std):
    weights = (
        torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * std
    ).to(torch.bfloat16)
    # the first update that is not rounded away, ties aside
    after = (weights.float() + rate * (1 + 1e-3) * weights.sign()).to(torch.bfloat16)
    share = (after != weights).float().mean().item()
    assert moved(rate, std) == pytest.approx(share, abs=0.01)
