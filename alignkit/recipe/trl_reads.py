"""Which field of a TRL config is read when: what nothing would read must not stand in a
recipe.

A row names fields and what must hold for a trainer to read them; a field of several
rows is read where any of them holds, a field of no row always. tests/test_trl_reads.py
holds the rows against the installed TRL's source, so that a field which TRL begins to
read elsewhere, or a new one, is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from alignkit.recipe.schema import walk
from alignkit.recipe.trl_needs import Needed, Row, none_of, one_of, word

POLICY = ("grpo", "rloo")
ALL = ("sft", "dpo", *POLICY)


def _row(methods: tuple[str, ...], fields: str, never: str = "", **needs: Any) -> Row:
    plain = {k: v if isinstance(v, Needed) else one_of(v) for k, v in needs.items()}
    return Row(methods, tuple(fields.split()), plain, never)


grpo, rloo, dpo, sft, policy, every = (
    partial(_row, methods)
    for methods in (("grpo",), ("rloo",), ("dpo",), ("sft",), POLICY, ALL)
)


STATED = none_of(None)
NOT_ZERO = none_of(0)
EVALUATES = one_of("steps", "epoch")
# The losses and advantages of TRL itself; a plugin in their place has its own options.
TRL_LOSS: dict[str, Any] = {"loss.name": "trl"}
TRL_ADVANTAGE: dict[str, Any] = {"advantage.name": None}
EVALUATION: dict[str, Any] = {"eval_strategy": EVALUATES}
DISTRIBUTED: dict[str, Any] = {"launch.processes": Needed(above=1)}
SERVER: dict[str, Any] = {"use_vllm": True, "vllm_mode": "server"}
COLOCATE: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate"}
CORRECTED: dict[str, Any] = {
    "use_vllm": True,
    "vllm_importance_sampling_correction": True,
}
CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
BY_LENGTH = ("group_by_length", "batch_rebalance")
BEST = "metric_for_best_model greater_is_better"
CONTINUOUS = "transformers_continuous_batching_config"
NO_METRICS = "no metrics function is handed to TRL"
LION = ("lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit")
GALORE = (
    *("galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
    *("galore_adamw_layerwise", "galore_adamw_8bit_layerwise"),
    "galore_adafactor_layerwise",
)
APOLLO = ("apollo_adamw", "apollo_adamw_layerwise")
NO_BETAS = (
    *("adafactor", "sgd", "adagrad", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit"),
    *(
        "rmsprop_bnb_32bit",
        "grokadamw",
        "lomo",
        "adalomo",
        "schedule_free_sgd",
        *GALORE,
    ),
)
NO_ARGUMENTS = (
    *("adafactor", "adamw_torch", "adamw_torch_fused", "adamw_torch_xla"),
    *("adamw_torch_npu_fused", "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit"),
    *("paged_adamw_8bit", "lomo", "adalomo", *LION),
)

ROWS = (
    # The losses and advantages of TRL.
    grpo("sapo_temperature_neg sapo_temperature_pos", **TRL_LOSS, loss_type="sapo"),
    grpo("vespo_k_pos vespo_k_neg", **TRL_LOSS, loss_type="vespo"),
    grpo("vespo_lambda_pos vespo_lambda_neg", **TRL_LOSS, loss_type="vespo"),
    grpo("delta epsilon epsilon_high", **TRL_LOSS, loss_type=one_of(*CLIPPED)),
    grpo("epsilon_high", **TRL_LOSS, loss_type="cispo"),
    # cispo has an upper bound only, for which epsilon stands in.
    grpo("epsilon", **TRL_LOSS, loss_type="cispo", epsilon_high=None),
    grpo("importance_sampling_level off_policy_mask_threshold", **TRL_LOSS),
    grpo("top_entropy_quantile entropy_coef use_adaptive_entropy", **TRL_LOSS),
    grpo("entropy_coef_min entropy_coef_max", **TRL_LOSS, use_adaptive_entropy=True),
    grpo("entropy_coef_delta entropy_target", **TRL_LOSS, use_adaptive_entropy=True),
    grpo("use_bias_correction_kl", beta=NOT_ZERO),
    rloo("epsilon epsilon_high", **TRL_LOSS),
    dpo("beta loss_weights ld_alpha f_divergence_type use_weighting", **TRL_LOSS),
    dpo("f_alpha_divergence_coef", **TRL_LOSS, f_divergence_type="alpha_divergence"),
    dpo("label_smoothing", **TRL_LOSS, loss_type=one_of(*SMOOTHED)),
    dpo("discopop_tau", **TRL_LOSS, loss_type="discopop"),
    sft("label_smoothing_factor", **TRL_LOSS, loss_type=one_of("nll", "chunked_nll")),
    grpo("multi_objective_aggregation", **TRL_ADVANTAGE),
    grpo(
        "scale_rewards",
        **TRL_ADVANTAGE,
        multi_objective_aggregation="sum_then_normalize",
    ),
    rloo("normalize_advantages", **TRL_ADVANTAGE),
    # Parts of the trainers that a switch turns on.
    dpo("ref_model_sync_steps ref_model_mixup_alpha", sync_ref_model=True),
    policy(
        "ref_model_sync_steps ref_model_mixup_alpha", sync_ref_model=True, beta=NOT_ZERO
    ),
    dpo("precompute_ref_batch_size", precompute_ref_log_probs=True),
    sft("packing_strategy", packing=True),
    sft("packing_strategy", eval_packing=True, eval_strategy=EVALUATES),
    policy("log_unique_prompts num_completions_to_print", log_completions=True),
    grpo("log_completions_hub_repo", log_completions=True),
    policy(CONTINUOUS, use_transformers_continuous_batching=True),
    policy(CONTINUOUS, use_transformers_paged=True),
    # Where rollouts come from.
    policy("cache_implementation ds3_gather_for_generation", use_vllm=False),
    policy("vllm_mode vllm_structured_outputs_regex", use_vllm=True),
    policy("vllm_server_base_url vllm_server_timeout vllm_group_port", **SERVER),
    policy("vllm_server_host vllm_server_port", **SERVER, vllm_server_base_url=None),
    policy("vllm_enable_sleep_mode vllm_gpu_memory_utilization", **COLOCATE),
    policy("vllm_max_model_length vllm_tensor_parallel_size", **COLOCATE),
    policy("vllm_model_impl", **COLOCATE),
    grpo("vllm_importance_sampling_correction", use_vllm=True),
    grpo("vllm_importance_sampling_mode vllm_importance_sampling_cap", **CORRECTED),
    grpo("vllm_importance_sampling_clip_min", **CORRECTED),
    grpo("vllm_importance_sampling_clip_max", **CORRECTED),
    # What alignkit has no use for.
    grpo("max_tool_calling_iterations", never="no tools are handed to TRL"),
    policy("log_multimodal", never="rows hold text alone"),
    policy("train_sampling_strategy", never="TRL draws whole groups of prompts"),
    policy("length_column_name", never="TRL draws whole groups of prompts"),
    policy("label_smoothing_factor", never="the loss has no such smoothing"),
    dpo("label_smoothing_factor", never="the loss has no such smoothing"),
    every("do_train do_predict", never="it is a flag for scripts"),
    every("include_for_metrics batch_eval_metrics", never=NO_METRICS),
    every("prediction_loss_only", never=NO_METRICS),
    # What transformers' trainer reads.
    every("save_steps", save_strategy="steps"),
    every("save_total_limit save_only_model", save_strategy=none_of("no")),
    every("logging_steps", logging_strategy="steps"),
    every("logging_steps", eval_strategy="steps", eval_steps=None),
    every("eval_steps", eval_strategy="steps"),
    every("eval_delay eval_on_start per_device_eval_batch_size", **EVALUATION),
    every("eval_accumulation_steps eval_do_concat_batches", **EVALUATION),
    every("eval_use_gather_object bf16_full_eval fp16_full_eval", **EVALUATION),
    policy("num_generations_eval", **EVALUATION),
    sft("eval_packing", **EVALUATION),
    every(BEST, load_best_model_at_end=True),
    every(BEST, save_strategy="best"),
    every(BEST, save_total_limit=STATED, **EVALUATION),
    every(BEST, lr_scheduler_type=one_of("reduce_lr_on_plateau", "greedy")),
    every(
        "warmup_steps",
        lr_scheduler_type=none_of("constant", "reduce_lr_on_plateau", "greedy"),
    ),
    every("warmup_steps", optim=one_of("schedule_free_adamw", "schedule_free_sgd")),
    every(
        "lr_scheduler_kwargs",
        lr_scheduler_type=none_of("constant", "constant_with_warmup"),
    ),
    every("adam_beta1 adam_beta2", optim=none_of(*NO_BETAS)),
    every("adam_epsilon", optim=none_of(*NO_BETAS, *LION)),
    every("optim_args", optim=none_of(*NO_ARGUMENTS)),
    every("optim_target_modules", optim=one_of(*GALORE, *APOLLO)),
    sft("length_column_name", train_sampling_strategy=one_of(*BY_LENGTH)),
    dpo("length_column_name", train_sampling_strategy=one_of(*BY_LENGTH)),
    every("gradient_checkpointing_kwargs", gradient_checkpointing=True),
    every("liger_kernel_config", use_liger_kernel=True),
    every("fsdp_config", fsdp=none_of(None, False, "")),
    every("ddp_find_unused_parameters ddp_bucket_cap_mb ddp_backend", **DISTRIBUTED),
    every("ddp_broadcast_buffers ddp_static_graph ddp_timeout", **DISTRIBUTED),
    every("hub_strategy hub_always_push", push_to_hub=True),
    every("hub_revision hub_private_repo", push_to_hub=True),
    grpo("hub_private_repo", log_completions_hub_repo=STATED),
    every("project trackio_space_id", track="trackio"),
    every("trackio_bucket_id trackio_static_space_id", track="trackio"),
)

_ENGINES = {True: "vllm", False: "transformers"}


def rows(method: str, name: str) -> list[Row]:
    """The rows of a field for a method; none where it is always read."""
    trained = "sft" if method == "expert_iteration" else method
    return [row for row in ROWS if trained in row.methods and name in row.fields]


def unread(method: str, name: str, settings: Mapping[str, Any]) -> str | None:
    """Why nothing reads a field under the settings in force, with what to change; None
    where it is read.

    `settings` holds every field of the method's TRL config, and by its dotted name what
    else a row asks for.
    """
    lacking = []
    for row in rows(method, name):
        if row.never:
            return f"is read by nothing here: {row.never}; leave it out"
        lacking.append((row, _lacking(row, settings)))
    if not lacking or any(not keys for _, keys in lacking):
        return None
    # Of two ways to have it read, the one that needs more changes helps nobody.
    ways = [
        (row, keys)
        for row, keys in lacking
        if not any(set(fewer) < set(keys) for _, fewer in lacking)
    ]
    needs = [" and ".join(_need(row, key) for key in keys) for row, keys in ways]
    given = [
        f"{_key(key)} is {_shown(key, settings[key])}"
        for _, keys in ways
        for key in keys
    ]
    return (
        f"is read only with {', or with '.join(dict.fromkeys(needs))}"
        f" ({', '.join(dict.fromkeys(given))}); leave it out or change that"
    )


def _lacking(row: Row, settings: Mapping[str, Any]) -> list[str]:
    return [key for key, need in row.needs.items() if not need.holds(settings[key])]


def needing(method: str, setting: str) -> frozenset[str]:
    """The fields of a method that nothing reads without a setting, such as those of
    TRL's own `loss`.
    """
    named = {name: rows(method, name) for row in ROWS for name in row.fields}
    return frozenset(
        name
        for name, stated in named.items()
        if stated and all(setting in row.needs for row in stated)
    )


def _need(row: Row, key: str) -> str:
    if key == "use_vllm":
        return f"generation.engine: {_ENGINES[row.needs[key].values[0]]} or auto"
    if key == "advantage.name":
        return "no advantage stated"
    return row.needs[key].words(_key(key))


def _key(setting: str) -> str:
    """The recipe's name of a field of TRL's; another key has its own."""
    if setting == "use_vllm":
        return "generation.engine"
    if setting == "loss_type":
        return "loss.loss_type"
    if walk.declared(setting.split(".")) is not None:
        return setting
    declared = walk.declarations().values()
    dotted = (known.dotted for known in declared if known.key.trl == setting)
    return next(dotted, f"train.{setting}")


def _shown(key: str, value: Any) -> str:
    return _ENGINES[value] if key == "use_vllm" else word(value)
