"""`train:` and `model.lora` are checked against the installed libraries' own classes,
without importing them.
"""

import ast
import dataclasses

import pytest

from alignkit.recipe import json_schema
from alignkit.recipe import trl as trl_fields
from alignkit.recipe.schema import METHODS, walk


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "grpo", "rloo", "dpo"])
def test_the_fields_read_from_source_are_those_of_the_class(method):
    import trl

    config = {
        "sft": trl.SFTConfig,
        "grpo": trl.GRPOConfig,
        "rloo": trl.RLOOConfig,
        "dpo": trl.DPOConfig,
    }[method]
    real = {field.name: field for field in dataclasses.fields(config)}
    read = trl_fields.fields(method)
    assert set(read) == set(real)
    for name, field in read.items():
        # transformers computes this default from the installed torch
        if name == "optim":
            continue
        default = real[name].default
        if default is dataclasses.MISSING:
            default = real[name].default_factory()
        stated = field.default if field.default != "list" else "[]"
        assert ast.literal_eval(stated) == default, name
        assert (real[name].metadata.get("help") or "").replace(
            "%%", "%"
        ) == field.help, name
        assert (
            not field.choices
            or default in (None, "", *field.choices)
            or default == [field.choices[0]]
        ), name


@pytest.mark.slow
def test_the_lora_fields_read_from_source_are_pefts():
    from peft import LoraConfig
    from peft.config import PeftConfig

    inherited = {field.name for field in dataclasses.fields(PeftConfig)}
    assert (
        set(trl_fields.lora_fields())
        == {field.name for field in dataclasses.fields(LoraConfig)} - inherited
    )


def test_the_fields_that_recipes_refuse_exist():
    everywhere = {
        name
        for method in ("sft", "grpo", "rloo", "dpo")
        for name in trl_fields.fields(method)
    }
    methods = ("sft", "grpo", "rloo", "dpo")
    assert {name for m in methods for name in METHODS[m].unread} <= everywhere
    handed_on = {known.key.trl for known in walk.declarations().values()}
    assert handed_on - {""} <= everywhere
    assert everywhere >= trl_fields.STOCK_ADVANTAGE_FIELDS
    for method, names in trl_fields.STOCK_LOSS_FIELDS.items():
        assert names <= set(trl_fields.fields(method))


@pytest.mark.parametrize(
    ("method", "field", "choices"),
    [
        ("grpo", "vllm_mode", {"server", "colocate"}),
        ("grpo", "importance_sampling_level", {"token", "sequence"}),
        (
            "grpo",
            "multi_objective_aggregation",
            {"sum_then_normalize", "normalize_then_sum"},
        ),
        (
            "grpo",
            "loss_type",
            {"grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"},
        ),
        (
            "dpo",
            "f_divergence_type",
            {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"},
        ),
        ("sft", "packing_strategy", {"bfd", "bfd_split", "wrapped"}),
        ("sft", "save_strategy", {"no", "steps", "epoch", "best"}),
        ("sft", "dataset_text_field", set()),
        ("sft", "length_column_name", set()),
    ],
)
def test_choices_come_from_metadata_enums_and_help(method, field, choices):
    assert set(trl_fields.fields(method)[field].choices) == choices


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("grpo", "learning_rate", 1),
        ("grpo", "warmup_steps", 0.1),
        ("sft", "max_length", None),
        ("sft", "pad_to_multiple_of", 8),
        ("sft", "pad_to_multiple_of", "auto"),
        ("sft", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("sft", "optim_target_modules", ["q", "v"]),
        ("rloo", "reward_clip_range", [-1, 1]),
        ("sft", "optim", "adamw_8bit"),
        ("sft", "save_strategy", "no"),
        ("sft", "debug", ["underflow_overflow"]),
        ("dpo", "beta", 0.2),
        ("expert_iteration", "packing", True),
    ],
)
def test_what_trl_takes_is_accepted(method, field, value):
    assert trl_fields.check(method, {field: value}) == []


@pytest.mark.parametrize(
    ("method", "field", "value", "expected"),
    [
        ("grpo", "learning_rate", True, "given true, expected a number"),
        ("grpo", "learning_rate", "1e-5", "given '1e-5' (text), expected a number"),
        ("grpo", "learning_rate", float("nan"), "given nan, expected a number"),
        ("grpo", "max_steps", 1.0, "given 1.0, expected a whole number"),
        ("grpo", "max_steps", None, "given nothing (null), expected a whole number"),
        ("grpo", "use_cpu", 1, "given 1, expected true or false"),
        ("grpo", "use_cpu", "off", "write false ('off' is text in YAML 1.2)"),
        ("grpo", "lr_scheduler_type", "cosin", "did you mean 'cosine'?"),
        (
            "grpo",
            "importance_sampling_level",
            "tokens",
            "expected one of token, sequence; did you mean 'token'?",
        ),
        ("sft", "optim_target_modules", ["q", 1], "expected null or text or list[str]"),
        ("sft", "debug", ["underflow"], "did you mean 'underflow_overflow'?"),
        ("rloo", "reward_clip_range", [1], "expected tuple[float, float] or null"),
        ("sft", "parallelism_config", {}, "cannot be written in a recipe"),
        ("sft", "num_generations", 4, "TRL's SFTConfig has no such field"),
        ("grpo", "save_strategy", "best", "use `best`, which keeps a model"),
        ("sft", "learing_rate", 4, "did you mean 'learning_rate'?"),
    ],
)
def test_what_trl_does_not_take_is_refused(method, field, value, expected):
    ((name, problem),) = trl_fields.check(method, {field: value})
    assert name == field and expected in problem


@pytest.mark.parametrize(
    ("field", "value", "use"),
    [
        ("max_completion_length", 8, "generation.max_new_tokens"),
        ("temperature", 1.0, "generation.temperature"),
        ("use_vllm", True, "generation.engine"),
        ("seed", 1, "seed"),
        ("report_to", "wandb", "track"),
        ("output_dir", "x", "output.root"),
        ("loss_type", "dapo", "loss: {name: trl"),
        ("hub_token", "hf_x", "HF_TOKEN"),
        ("reward_weights", [1.0], "rewards.<name>.weight"),
    ],
)
def test_what_another_key_says_is_refused_with_that_key(field, value, use):
    ((name, problem),) = trl_fields.check("grpo", {field: value})
    assert name == field and use in problem and "hf_x" not in problem


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("sft", "truncation_mode", "keep_end"),
        ("sft", "eos_token", "<|im_end|>"),
        ("sft", "chat_template_path", "other/model"),
        ("sft", "assistant_only_loss", True),
        ("expert_iteration", "dataset_text_field", "body"),
        ("dpo", "padding_free", True),
        ("grpo", "trust_remote_code", True),
    ],
)
def test_what_comes_too_late_for_prepared_rows_or_is_read_by_nothing_is_refused(
    method, field, value
):
    ((name, problem),) = trl_fields.check(method, {field: value})
    assert name == field and problem.startswith("in a recipe ")


def test_generation_kwargs_cannot_contradict_generation():
    found = trl_fields.check(
        "grpo", {"generation_kwargs": {"max_tokens": 4, "suppress_tokens": [1]}}
    )
    assert found == [("generation_kwargs.max_tokens", "use generation.max_new_tokens")]


def test_fields_of_trls_own_loss_are_refused_beside_a_plugin():
    assert trl_fields.check("grpo", {"epsilon": 0.1}, loss="trl") == []
    assert trl_fields.check("grpo", {"epsilon": 0.1}) == []
    assert (
        "loss.name is own"
        in trl_fields.check("grpo", {"epsilon": 0.1}, loss="own")[0][1]
    )
    assert trl_fields.check("grpo", {"scale_rewards": "none"}, loss="own") == []
    assert (
        "states advantage"
        in trl_fields.check("grpo", {"scale_rewards": "none"}, "own", advantage=True)[
            0
        ][1]
    )


def test_trls_own_loss_is_chosen_by_loss_type():
    assert trl_fields.check_loss("dpo", {"loss_type": "hinge"}) == []
    assert trl_fields.check_loss("dpo", {"loss_type": ["sigmoid", "sft"]}) == []
    assert (
        "did you mean 'dr_grpo'?"
        in trl_fields.check_loss("grpo", {"loss_type": "drgrpo"})[0][1]
    )
    assert (
        "no option of TRL's own loss for rloo"
        in trl_fields.check_loss("rloo", {"loss_type": "x"})[0][1]
    )


def test_lora_takes_pefts_names_and_alpha():
    settings = {
        "r": 16,
        "alpha": 32,
        "target_modules": "all-linear",
        "init_lora_weights": "pissa_niter_16",
    }
    assert trl_fields.check_lora(settings) == []
    found = dict(
        trl_fields.check_lora({"bias": "some", "eva_config": 3, "target_modules": [1]})
    )
    assert "expected one of none, all, lora_only" in found["bias"]
    assert "expected a map" in found["eva_config"] and "target_modules" in found


def test_the_json_schema_names_every_key_and_trls_fields_by_method():
    schema = json_schema()
    assert {"extends", "method", "loss", "stages"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert "required" not in schema and not any(
        "required" in section for section in schema["$defs"].values()
    )
    by_method = {
        rule["if"]["properties"]["method"]["const"]: rule["then"]["properties"]
        for rule in schema["allOf"]
    }
    assert {"num_generations", "beta"} <= set(by_method["grpo"]["train"]["properties"])
    assert "num_generations" not in by_method["sft"]["train"]["properties"]
    assert "temperature" not in by_method["grpo"]["train"]["properties"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", -2),
        ("num_generations", 0),
        ("num_iterations", 0),
        ("logging_steps", 0),
        ("learning_rate", -1e-6),
    ],
)
def test_a_number_that_is_too_low_is_refused(field, value):
    [(name, text)] = trl_fields.check("grpo", {field: value})
    assert name == field and text.startswith(f"given {value}, expected ")


def test_the_fields_with_a_lowest_value_exist_and_their_defaults_are_allowed():
    everywhere = {
        method: trl_fields.fields(method) for method in ("sft", "grpo", "rloo", "dpo")
    }
    assert set(trl_fields._LOWEST) <= {
        name for fields in everywhere.values() for name in fields
    }
    for method, fields in everywhere.items():
        defaults = {
            name: ast.literal_eval(fields[name].default)
            for name in trl_fields._LOWEST
            if name in fields
        }
        stated = {name: value for name, value in defaults.items() if value is not None}
        assert trl_fields.check(method, stated) == [], method
