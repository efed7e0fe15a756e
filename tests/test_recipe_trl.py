"""`train:`, `model.lora` and `model.quantize` are checked against the installed
libraries' own classes.
"""

import pytest

from alignkit.recipe import json_schema, trl
from alignkit.recipe.schema import METHODS, walk


def test_the_fields_that_recipes_refuse_exist():
    methods = ("sft", "grpo", "rloo", "dpo")
    everywhere = {name for method in methods for name in trl.fields(method)}
    assert {name for m in methods for name in METHODS[m].unread} <= everywhere
    handed_on = {known.key.trl for known in walk.declarations().values()}
    assert handed_on - {""} <= everywhere
    assert everywhere >= trl.STOCK_ADVANTAGE_FIELDS
    for method, names in trl.STOCK_LOSS_FIELDS.items():
        assert names <= set(trl.fields(method))


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
    assert set(trl.fields(method)[field].choices) == choices


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("grpo", "learning_rate", 1),
        ("grpo", "warmup_steps", 0.1),
        ("sft", "max_length", None),
        ("sft", "pad_to_multiple_of", 8),
        ("sft", "pad_to_multiple_of", "auto"),
        ("sft", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("sft", "label_names", ["q", "v"]),
        ("rloo", "reward_clip_range", [-1, 1]),
        ("sft", "optim", "adamw_8bit"),
        ("sft", "save_strategy", "no"),
        ("sft", "debug", ["underflow_overflow"]),
        ("dpo", "beta", 0.2),
        ("expert_iteration", "packing", True),
        ("sft", "max_steps", -1),
        ("sft", "fsdp", True),
        ("sft", "fsdp", "full_shard auto_wrap"),
        (
            "sft",
            "parallelism_config",
            {"tp_size": 2, "tp_handler": {"enable_async_tp": False}},
        ),
        ("sft", "accelerator_config", {"even_batches": False}),
        ("sft", "accelerator_config", "accelerator.json"),
        ("sft", "deepspeed", {"zero_optimization": {"stage": 3}}),
        ("grpo", "scale_rewards", True),
    ],
)
def test_what_trl_takes_is_accepted(method, field, value):
    assert list(trl.check(method, {field: value})) == []


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
        (
            "sft",
            "optim_target_modules",
            ["q", 1],
            "in the list: given 1, expected text",
        ),
        ("sft", "debug", ["underflow"], "did you mean 'underflow_overflow'?"),
        ("rloo", "reward_clip_range", [1], "expected a list of 2: a number, a number"),
        ("sft", "max_steps", 0, "given 0, expected at least 1"),
        ("sft", "fsdp", 1, "given 1, expected text or null or true or false"),
        ("sft", "accelerator_config", [], "expected text or null or a map"),
        ("sft", "save_total_limit", "two", "expected a whole number or null"),
        ("sft", "num_generations", 4, "TRL's SFTConfig has no such field"),
        ("grpo", "save_strategy", "best", "use `best`, which keeps a model"),
        ("sft", "learing_rate", 4, "did you mean 'learning_rate'?"),
    ],
)
def test_what_trl_does_not_take_is_refused(method, field, value, expected):
    ((name, problem),) = trl.check(method, {field: value})
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
    ((name, problem),) = trl.check("grpo", {field: value})
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
    ((name, problem),) = trl.check(method, {field: value})
    assert name == field and problem.startswith("in a recipe ")


def test_generation_kwargs_cannot_contradict_generation():
    found = list(
        trl.check(
            "grpo", {"generation_kwargs": {"max_tokens": 4, "suppress_tokens": [1]}}
        )
    )
    assert found == [("generation_kwargs.max_tokens", "use generation.max_new_tokens")]


def unread(method, train, **recipe):
    """Why fields are read by nothing, by name, in a recipe with these other sections."""
    settings = trl.effective({"train": train, **recipe}, method)
    return dict(trl.unread(method, train, settings))


def test_fields_of_trls_own_loss_are_refused_beside_a_plugin():
    own = {"name": "own"}
    assert unread("grpo", {"epsilon": 0.1}, loss={"name": "trl"}) == {}
    assert unread("grpo", {"epsilon": 0.1}) == {}
    assert "loss.name is own" in unread("grpo", {"epsilon": 0.1}, loss=own)["epsilon"]
    assert unread("grpo", {"scale_rewards": "none"}, loss=own) == {}
    refused = unread(
        "grpo", {"scale_rewards": "none"}, loss=own, advantage={"name": "raw"}
    )
    assert "advantage.name is raw" in refused["scale_rewards"]


def test_trls_own_loss_is_chosen_by_loss_type():
    assert not list(trl.check_loss("dpo", {"loss_type": "hinge"}))
    assert not list(trl.check_loss("dpo", {"loss_type": ["sigmoid", "sft"]}))
    assert (
        "did you mean 'dr_grpo'?"
        in next(trl.check_loss("grpo", {"loss_type": "drgrpo"}))[1]
    )
    assert (
        "no option of TRL's own loss for rloo"
        in next(trl.check_loss("rloo", {"loss_type": "x"}))[1]
    )


@pytest.mark.parametrize(
    ("field", "value", "place", "expected"),
    [
        ("parallelism_config", {"tp_sise": 2}, "tp_sise", "did you mean 'tp_size'?"),
        (
            "parallelism_config",
            {"tp_size": "2"},
            "tp_size",
            "given '2' (text), expected a whole number or null",
        ),
        ("parallelism_config", {"cp_backend": "ring"}, "cp_backend", "expected torch"),
        (
            "accelerator_config",
            {"even_batches": 1},
            "even_batches",
            "given 1, expected true or false",
        ),
        ("liger_kernel_config", {"rope": "yes"}, "rope", "write true"),
    ],
)
def test_what_is_wrong_in_a_map_is_named_by_its_own_key(field, value, place, expected):
    train = {field: value, "use_liger_kernel": True}
    ((name, problem),) = trl.check("sft", train)
    assert name == f"{field}.{place}" and expected in problem


def test_a_nested_map_becomes_the_object_that_the_class_asks_for():
    from dataclasses import dataclass, field

    @dataclass
    class Handler:
        on: bool = False

    @dataclass
    class Parallel:
        size: int = 1
        handler: Handler | None = None

    @dataclass
    class Config:
        parallel: Parallel | None = None
        kwargs: dict = field(default_factory=dict)

    given = {"parallel": {"size": 2, "handler": {"on": True}}, "kwargs": {"a": 1}}
    assert trl.built(Config, given) == {
        "parallel": Parallel(2, Handler(True)),
        "kwargs": {"a": 1},
    }


def test_lora_takes_pefts_names_and_alpha():
    settings = {
        "r": 16,
        "alpha": 32,
        "target_modules": "all-linear",
        "init_lora_weights": "pissa_niter_16",
    }
    assert not list(trl.check_lora(settings))
    found = dict(
        trl.check_lora({"bias": "some", "eva_config": 3, "target_modules": [1]})
    )
    assert "expected one of none, all, lora_only" in found["bias"]
    assert "expected a map" in found["eva_config"] and "target_modules" in found
    nested = {
        "eva_config": {"rho": 2.0},
        "loftq_config": {"loftq_bits": 4},
        "runtime_config": {"ephemeral_gpu_offload": True},
    }
    assert not list(trl.check_lora(nested))
    assert [name for name, _ in trl.check_lora({"loftq_config": {"bits": 4}})] == [
        "loftq_config.bits"
    ]
    assert dict(trl.check_lora({"init_lora_weights": "pissa_niter_many"}))


def test_quantisation_takes_what_transformers_takes():
    assert not list(
        trl.check_quantize({"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"})
    )
    found = dict(
        trl.check_quantize(
            {"load_in_4bit": 1, "llm_int8_threshold": "6", "bnb_4bit": True}
        )
    )
    assert (
        "expected true or false" in found["load_in_4bit"]
        and "expected a number" in found["llm_int8_threshold"]
    )
    assert "no such field" in found["bnb_4bit"]


def test_the_json_schema_names_every_key_and_trls_fields_by_method():
    schema = json_schema()
    assert {"extends", "method", "loss", "stages"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert "required" not in schema and not any(
        "required" in section for section in schema["$defs"].values()
    )
    for named in ("Prompt", "EvalReward"):
        name, whole = schema["$defs"][named]["anyOf"]
        assert name == {"type": "string"} and "required" not in whole
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
    [(name, text)] = trl.check("grpo", {field: value})
    assert name == field and text.startswith(f"given {value}, expected ")


def test_the_fields_with_a_lowest_value_exist_and_their_defaults_are_allowed():
    everywhere = {
        method: trl.fields(method) for method in ("sft", "grpo", "rloo", "dpo")
    }
    assert set(trl._LOWEST) <= {
        name for fields in everywhere.values() for name in fields
    }
    for method, fields in everywhere.items():
        defaults = {
            name: fields[name].default for name in trl._LOWEST if name in fields
        }
        stated = {name: value for name, value in defaults.items() if value is not None}
        assert not list(trl.check(method, stated)), method
