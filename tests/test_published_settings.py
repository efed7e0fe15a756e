"""The settings that were published for the experiments, each with its source, against
the resolved recipes.

A5: CS336 assignment 5 (Alignment and Reasoning RL), handout 1.0.2; A5S: its supplement
(Instruction Tuning and RLHF), handout 1.0.1; GA: the public solution by A. Garg
(github.com/garg-aayush/building-from-scratch).
"""

from __future__ import annotations

import math

import pytest

from alignkit import kits, plan, plugins, recipe
from alignkit.recipe.tree import plain
from alignkit.sweep import spec
from alignkit.train.iterate import train_settings

ROOT = kits.builtin().root / "recipes"

R1_ZERO_SAMPLING = {  # A5 section 3: evaluation; A5 section 7: rollouts
    "generation.temperature": 1.0,
    "generation.top_p": 1.0,
    "generation.max_new_tokens": 1024,
    "generation.min_new_tokens": 4,
    "generation.stop": ["</answer>"],
}
MATH_TASK = {
    "model.path": "Qwen/Qwen2.5-Math-1.5B",  # A5 section 2
    "model.dtype": "bfloat16",
    "data.train.dataset": "math",
    "rewards.drgrpo.fast": True,  # A5: r1_zero_reward_fn with its default
}
PUBLISHED = {
    "grpo_math": {
        **MATH_TASK,
        **R1_ZERO_SAMPLING,
        "data.prompt": "r1_zero",  # A5 section 3
        "train.max_steps": 200,  # A5 section 7.2, n_grpo_steps
        "train.learning_rate": 1e-5,
        "train.adam_beta1": 0.9,
        "train.adam_beta2": 0.95,
        "train.weight_decay": 0.0,
        "train.max_grad_norm": 1.0,
        "train.num_generations": 8,  # group_size
        "train.per_device_train_batch_size": 2,  # train_batch_size 256 / 128
        "train.gradient_accumulation_steps": 128,
        "train.beta": 0.0,  # no KL term
        "loss.name": "reinforce_with_baseline",
        "loss.normalize": "sequence",  # masked_mean
        "advantage.name": "group",
        "advantage.scale": "std",  # use_std_normalization
        "advantage.eps": 1e-6,  # advantage_eps
        "evals.math.every": 5,  # A5: every 5 to 10 steps
        "evals.math.limit": 1024,  # A5: at least 1024 examples
    },
    "expert_iteration_math": {
        **MATH_TASK,
        **R1_ZERO_SAMPLING,
        "expert_iteration.iterations": 5,  # A5 section 5, n_ei_steps
        "expert_iteration.questions": 1024,  # A5: 512, 1024 or 2048; GA: 1024 is best
        "expert_iteration.rollouts": 4,  # GA: 4 is best
        # GA: per_token_loss, the mean over each response's tokens; A5: as SFT
        "loss.normalize": "sequence",
        "train.max_grad_norm": 1.0,  # A5 section 5
        "evals.math.before": True,
    },
    "sft_math": {
        "model.path": "Qwen/Qwen2.5-Math-1.5B",
        "data.train.split": "sft",  # A5 section 4: R1 traces
        "loss.normalize": "constant",  # A5: the sum over a response's tokens ...
        "loss.constant": 1.0,  # ... divided by normalize_constant 1.0
        "train.max_grad_norm": 1.0,  # A5 section 4.3
    },
    "sft_instruct": {
        "model.path": "meta-llama/Llama-3.1-8B",  # A5S section 3
        "data.validation.split": "test",  # the validation loss is followed
        "train.eval_strategy": "steps",
        "data.prompt": "alpaca",
        "train.num_train_epochs": 1,
        "train.packing": True,
        "train.packing_strategy": "wrapped",  # chunks without overlap
        "train.completion_only_loss": False,  # loss on all tokens
        "train.max_length": 512,
        "train.learning_rate": 2e-5,
        "train.lr_scheduler_type": "cosine",
        "train.warmup_steps": 0.03,
        "train.gradient_accumulation_steps": 16,
    },
    # GA: the variant
    "sft_instruct_masked": {
        "train.completion_only_loss": True,
        "data.prompt": "alpaca",
    },
    "dpo_hh": {
        "data.train.dataset": "hh",  # A5S section 5
        "data.validation.split": "test",
        "data.validation.limit": 200,  # about 200 pairs are held out
        "train.eval_strategy": "steps",
        "data.prompt": "alpaca",
        "loss.name": "dpo",
        "loss.beta": 0.1,
        "train.optim": "rmsprop",
        "train.learning_rate": 1e-6,
        "train.num_train_epochs": 1,
        "train.per_device_train_batch_size": 1,  # one pair at a time
        "train.gradient_accumulation_steps": 64,
    },
    # A5: epsilon such as 0.2
    "grpo_math_off_policy": {"loss.name": "grpo_clip", "loss.cliprange": 0.2},
}
ROWS = {  # rows of one optimizer step, and what a batch of rollouts is made of
    "grpo_math": {
        "rows per optimizer step": 256,
        "completions per generation": 256,
        "prompts per generation": 32,
    },
    "rloo_math": {"rows per optimizer step": 256, "prompts per generation": 32},
    "sft_instruct": {"rows per optimizer step": 32},  # A5S: 2 x 16
    "dpo_hh": {"rows per optimizer step": 64},
}
SWEEPS = {
    # GA
    "grpo_learning_rate": {
        "train.learning_rate": {1e-6, 3e-6, 1e-5, 1.5e-5, 3e-5, 1e-4}
    },
    "grpo_baselines": {"loss.name": {"no_baseline", "reinforce_with_baseline"}},  # A5
    # A5: mean, constant; GA: the longest of the microbatch too
    "grpo_length_normalization": {
        "loss.normalize": {"sequence", "constant", "microbatch"},
        "loss.constant": {None, 1024},
    },
    "grpo_group_std": {"advantage.scale": {"std", "none"}},  # A5
    "grpo_clip": {"loss.name": {"grpo_clip", "grpo_no_clip"}},  # A5
    # A5
    "grpo_prompt": {
        "data.prompt": {"r1_zero", "question_only"},
        "evals.math.prompt": {None, "question_only"},
    },
    "sft_data_size": {"data.train.limit": {128, 256, 512, 1024, None}},  # A5
    # A5; GA: two epochs
    "sft_filtered": {
        "data.train.correct": {None, True},
        "train.num_train_epochs": {1, 2},
    },
    # A5; GA's per_token_loss is `sequence`
    "sft_loss": {"loss.normalize": {"constant", "sequence", "token"}},
    # A5; GA
    "ei_grid": {
        "expert_iteration.questions": {512, 1024, 2048},
        "expert_iteration.rollouts": {2, 4, 8},
    },
    # A5; GA
    "ei_training": {
        "expert_iteration.epochs": {1, 2},
        "expert_iteration.correct": {"all", "single"},
    },
}


def value(config, key):
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture(scope="module")
def load(registry):
    return lambda name, change=None: recipe.load(
        ROOT / f"{name}.yaml", registry=registry, change=change
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name, settings in PUBLISHED.items() for key in settings],
)
def test_a_recipe_has_the_published_setting(load, name, key):
    assert value(load(name).resolved, key) == PUBLISHED[name][key]


@pytest.mark.parametrize("name", ROWS)
def test_a_step_has_the_published_rows(load, name):
    arithmetic = plan.batch_arithmetic(load(name).config)
    assert {key: arithmetic[key] for key in ROWS[name]} == ROWS[name]


def variants(name, registry):
    read = spec.read(ROOT / f"ablations/{name}.yaml", seeds=None, overlays=(), sets=())
    return {
        label: recipe.load(read.base, registry=registry, change=node)
        for label, node in read.changes.items()
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_takes_the_published_values(registry, name):
    found = variants(name, registry).values()
    for key, expected in SWEEPS[name].items():
        assert {value(one.resolved, key) for one in found} == expected


def test_the_off_policy_grid_is_the_published_one_and_every_point_sees_as_many_rollouts(
    registry,
):
    grid = {}
    for one in variants("grpo_off_policy", registry).values():
        rows = plan.batch_arithmetic(one.config)
        epochs = plan.setting(one.config, "num_iterations")
        grid[epochs, rows["rows per optimizer step"]] = rows
        assert rows["completions per generation"] == 256  # A5: rollout_batch_size
        assert (
            rows["optimizer steps per generation"]
            == epochs * 256 / rows["rows per optimizer step"]
        )
        assert plan.setting(one.config, "max_steps") == -1
        batches = plan.setting(one.config, "num_train_epochs") * math.ceil(
            7500 / rows["prompts per generation"]
        )
        assert round(batches) == 50  # GA: the broad sweep; A5: fewer than 50 steps
    assert set(grid) == {(e, b) for e in (1, 2, 4) for b in (256, 128, 64)}


def test_prompt_and_reward_change_together(registry):
    found = variants("grpo_prompt", registry)["question_only"].resolved
    assert (
        set(found["rewards"]) == {"question_only"}
        and found["data"]["prompt"] == "question_only"
    )
    assert (
        found["generation"]["stop"] == [] == found["evals"]["math"]["sampling"]["stop"]
    )


@pytest.mark.parametrize(
    ("kept", "rows", "learning_rate"),  # GA: below 24, from 24 to 127, from 128
    [
        (1, 8, 3.5e-5),
        (23, 8, 3.5e-5),
        (24, 32, 5e-5),
        (127, 32, 5e-5),
        (128, 64, 7e-5),
        (4096, 64, 7e-5),
    ],
)
def test_expert_iteration_trains_by_how_much_it_kept(load, kept, rows, learning_rate):
    settings = train_settings(load("expert_iteration_math").config, kept)
    assert (
        settings["per_device_train_batch_size"]
        * settings["gradient_accumulation_steps"]
        == rows
    )
    assert settings["learning_rate"] == learning_rate
    assert settings["num_train_epochs"] == 1


def test_the_sampling_of_math_is_the_published_one_for_training_and_evaluation(
    registry,
):
    sampling = registry.get("eval", "math").value.sampling
    # A5 section 3
    assert sampling == {
        "temperature": 1.0,
        "max_new_tokens": 1024,
        "stop": ["</answer>"],
    }


def test_an_ablation_states_only_what_it_varies():
    for path in (ROOT / "ablations").glob("*.yaml"):
        read = spec.read(path, seeds=None, overlays=(), sets=())
        stated = {key for node in read.changes.values() for key in plain(node)}
        assert not stated & {"model", "seed", "name", "method"}, path.name
