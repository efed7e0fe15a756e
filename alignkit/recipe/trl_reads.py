"""Which field of a TRL config is read when: what nothing would read must not stand in a recipe.

A row names fields and what must hold for a trainer to read them; a field of several rows is read
where any of them holds, a field of no row always. tests/test_trl_reads.py holds the rows against the
installed TRL's source, so that a field which TRL begins to read elsewhere, or a new one, is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNSURE = object()  # a value that is known only where the recipe runs (`engine: auto`)
POLICY = ("grpo", "rloo")
ALL = ("sft", "dpo", *POLICY)


@dataclass(frozen=True, slots=True)
class Needed:
    """What a setting must be: one of `values` (or none of them), a list that has one, or more than `above`."""

    values: tuple[Any, ...] = ()
    none_of: bool = False
    above: int | None = None

    def holds(self, value: Any) -> bool:
        """Whether a setting's value will do."""
        if value is UNSURE:
            return True
        if self.above is not None:
            return bool(value > self.above)
        listed = value if isinstance(value, list | tuple) else [value]
        return any(item in self.values for item in listed) is not self.none_of

    def words(self, key: str) -> str:
        """The need as an error says it."""
        if self.above is not None:
            return f"{key} above {self.above}"
        named = [_word(value) for value in self.values]
        text = " or ".join(
            [", ".join(named[:-1]), named[-1]] if len(named) > 1 else named
        )
        if not self.none_of:
            return f"{key}: {text}"
        return f"{key} stated" if self.values == (None,) else f"{key} other than {text}"


@dataclass(frozen=True, slots=True)
class Row:
    """Fields of some methods, and what must hold for them to be read; `never` says why nothing reads them."""

    methods: tuple[str, ...]
    fields: tuple[str, ...]
    needs: Mapping[str, Needed] = field(default_factory=dict)
    never: str = ""


def _row(methods: tuple[str, ...], fields: str, never: str = "", **needs: Any) -> Row:
    plain = {k: v if isinstance(v, Needed) else one_of(v) for k, v in needs.items()}
    return Row(methods, tuple(fields.split()), plain, never)


def one_of(*values: Any) -> Needed:
    """One of some values."""
    return Needed(values)


def none_of(*values: Any) -> Needed:
    """Another value than these."""
    return Needed(values, none_of=True)


STATED = none_of(None)
NOT_ZERO = none_of(0)
EVALUATES = one_of("steps", "epoch")
CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
# The losses and advantages of TRL itself; a plugin in their place has options of its own.
TRL_LOSS: dict[str, Any] = {"loss": "trl"}
TRL_ADVANTAGE: dict[str, Any] = {"advantage": None}
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
    # The losses of TRL.
    _row(("grpo",), "sapo_temperature_neg sapo_temperature_pos", **TRL_LOSS, loss_type="sapo"),
    _row(("grpo",), "vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg", **TRL_LOSS, loss_type="vespo"),
    _row(("grpo",), "delta epsilon epsilon_high", **TRL_LOSS, loss_type=one_of(*CLIPPED)),
    _row(("grpo",), "epsilon_high", **TRL_LOSS, loss_type="cispo"),
    # cispo has an upper bound only, for which epsilon stands in.
    _row(("grpo",), "epsilon", **TRL_LOSS, loss_type="cispo", epsilon_high=None),
    _row(("grpo",), "importance_sampling_level top_entropy_quantile off_policy_mask_threshold", **TRL_LOSS),
    _row(("grpo",), "entropy_coef use_adaptive_entropy", **TRL_LOSS),
    _row(
        ("grpo",), "entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target",
        **TRL_LOSS, use_adaptive_entropy=True,
    ),
    _row(("grpo",), "use_bias_correction_kl", beta=NOT_ZERO),
    _row(("rloo",), "epsilon epsilon_high", **TRL_LOSS),
    _row(("dpo",), "beta loss_weights ld_alpha f_divergence_type use_weighting", **TRL_LOSS),
    _row(("dpo",), "f_alpha_divergence_coef", **TRL_LOSS, f_divergence_type="alpha_divergence"),
    _row(("dpo",), "label_smoothing", **TRL_LOSS, loss_type=one_of(*SMOOTHED)),
    _row(("dpo",), "discopop_tau", **TRL_LOSS, loss_type="discopop"),
    _row(("sft",), "label_smoothing_factor", **TRL_LOSS, loss_type=one_of("nll", "chunked_nll")),
    _row(("grpo",), "scale_rewards", **TRL_ADVANTAGE, multi_objective_aggregation="sum_then_normalize"),
    _row(("grpo",), "multi_objective_aggregation", **TRL_ADVANTAGE),
    _row(("rloo",), "normalize_advantages", **TRL_ADVANTAGE),
    # Parts of the trainers that a switch turns on.
    _row(("dpo",), "ref_model_sync_steps ref_model_mixup_alpha", sync_ref_model=True),
    _row(POLICY, "ref_model_sync_steps ref_model_mixup_alpha", sync_ref_model=True, beta=NOT_ZERO),
    _row(("dpo",), "precompute_ref_batch_size", precompute_ref_log_probs=True),
    _row(("sft",), "packing_strategy", packing=True),
    _row(("sft",), "packing_strategy", eval_packing=True, eval_strategy=EVALUATES),
    _row(POLICY, "log_unique_prompts num_completions_to_print", log_completions=True),
    _row(("grpo",), "log_completions_hub_repo", log_completions=True),
    _row(POLICY, "transformers_continuous_batching_config", use_transformers_continuous_batching=True),
    _row(POLICY, "transformers_continuous_batching_config", use_transformers_paged=True),
    # Where rollouts come from.
    _row(POLICY, "cache_implementation ds3_gather_for_generation", use_vllm=False),
    _row(POLICY, "vllm_mode vllm_structured_outputs_regex", use_vllm=True),
    _row(
        POLICY, "vllm_server_base_url vllm_server_timeout vllm_group_port",
        use_vllm=True, vllm_mode="server",
    ),
    _row(
        POLICY, "vllm_server_host vllm_server_port",
        use_vllm=True, vllm_mode="server", vllm_server_base_url=None,
    ),
    _row(
        POLICY,
        "vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_max_model_length vllm_model_impl "
        "vllm_tensor_parallel_size",
        use_vllm=True, vllm_mode="colocate",
    ),
    _row(("grpo",), "vllm_importance_sampling_correction", use_vllm=True),
    _row(
        ("grpo",),
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_min vllm_importance_sampling_clip_max "
        "vllm_importance_sampling_cap",
        use_vllm=True, vllm_importance_sampling_correction=True,
    ),
    # What alignkit has no use for.
    _row(("grpo",), "max_tool_calling_iterations", never="no tools are handed to TRL"),
    _row(POLICY, "log_multimodal", never="rows hold text alone"),
    _row(POLICY, "chat_template_kwargs", never="prompts are rendered before TRL sees them"),
    _row(POLICY, "train_sampling_strategy length_column_name", never="TRL draws whole groups of prompts"),
    _row(("dpo", *POLICY), "label_smoothing_factor", never="the method's loss has no such smoothing"),
    _row(ALL, "do_train do_predict", never="it is a flag for scripts"),
    _row(
        ALL, "include_for_metrics batch_eval_metrics prediction_loss_only",
        never="no metrics function is handed to TRL",
    ),
    # transformers' own.
    _row(ALL, "save_steps", save_strategy="steps"),
    _row(ALL, "save_total_limit save_only_model", save_strategy=none_of("no")),
    _row(ALL, "logging_steps", logging_strategy="steps"),
    _row(ALL, "logging_steps", eval_strategy="steps", eval_steps=None),
    _row(ALL, "eval_steps", eval_strategy="steps"),
    _row(
        ALL,
        "eval_delay eval_on_start eval_accumulation_steps eval_do_concat_batches eval_use_gather_object "
        "per_device_eval_batch_size bf16_full_eval fp16_full_eval",
        eval_strategy=EVALUATES,
    ),
    _row(POLICY, "num_generations_eval", eval_strategy=EVALUATES),
    _row(("sft",), "eval_packing", eval_strategy=EVALUATES),
    _row(ALL, "metric_for_best_model greater_is_better", load_best_model_at_end=True),
    _row(ALL, "metric_for_best_model greater_is_better", save_strategy="best"),
    _row(ALL, "metric_for_best_model greater_is_better", save_total_limit=STATED, eval_strategy=EVALUATES),
    _row(ALL, "metric_for_best_model greater_is_better", lr_scheduler_type=one_of("reduce_lr_on_plateau", "greedy")),
    _row(ALL, "warmup_steps", lr_scheduler_type=none_of("constant", "reduce_lr_on_plateau", "greedy")),
    _row(ALL, "warmup_steps", optim=one_of("schedule_free_adamw", "schedule_free_sgd")),
    _row(ALL, "lr_scheduler_kwargs", lr_scheduler_type=none_of("constant", "constant_with_warmup")),
    _row(ALL, "adam_beta1 adam_beta2", optim=none_of(*NO_BETAS)),
    _row(ALL, "adam_epsilon", optim=none_of(*NO_BETAS, *LION)),
    _row(ALL, "optim_args", optim=none_of(*NO_ARGUMENTS)),
    _row(ALL, "optim_target_modules", optim=one_of(*GALORE, *APOLLO)),
    _row(("sft", "dpo"), "length_column_name", train_sampling_strategy=one_of("group_by_length", "batch_rebalance")),
    _row(ALL, "gradient_checkpointing_kwargs", gradient_checkpointing=True),
    _row(ALL, "liger_kernel_config", use_liger_kernel=True),
    _row(ALL, "fsdp_config", fsdp=none_of(None, False, "")),
    _row(
        ALL,
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout",
        processes=Needed(above=1),
    ),
    _row(ALL, "hub_strategy hub_always_push hub_revision hub_private_repo", push_to_hub=True),
    _row(("grpo",), "hub_private_repo", log_completions_hub_repo=STATED),
    _row(ALL, "project trackio_space_id trackio_bucket_id trackio_static_space_id", track="trackio"),
)  # fmt: skip

# What a condition is called in a recipe, where it is no field of `train`.
_KEYS = {
    "loss": "loss.name",
    "loss_type": "loss.loss_type",
    "advantage": "advantage",
    "use_vllm": "generation.engine",
    "vllm_mode": "generation.vllm.mode",
    "vllm_server_base_url": "generation.vllm.server",
    "processes": "launch.processes",
    "track": "track",
}
_ENGINES = {True: "vllm", False: "transformers"}


def rows(method: str, name: str) -> list[Row]:
    """The rows of a field for a method; none where it is always read."""
    trained = "sft" if method == "expert_iteration" else method
    return [row for row in ROWS if trained in row.methods and name in row.fields]


def unread(method: str, name: str, settings: Mapping[str, Any]) -> str | None:
    """Why nothing reads a field under the settings in force, with what to change; None where it is read.

    `settings` holds every field of the method's TRL config, and `loss`, `advantage`, `processes`, `track`.
    """
    stated = rows(method, name)
    lacking = [
        [k for k, need in row.needs.items() if not need.holds(settings[k])]
        for row in stated
    ]
    if not stated or any(
        not keys and not row.never for row, keys in zip(stated, lacking, strict=True)
    ):
        return None
    if stated[0].never:
        return f"is read by nothing here: {stated[0].never}; leave it out"
    # Of two ways to have it read, the one that needs more changes than the other helps nobody.
    ways = [
        (row, keys) for row, keys in zip(stated, lacking, strict=True)
        if not any(set(other) < set(keys) for other in lacking)
    ]  # fmt: skip
    needs = [" and ".join(_need(row, key) for key in keys) for row, keys in ways]
    given = dict.fromkeys(
        f"{_key(key)} is {_shown(key, settings[key])}"
        for _, keys in ways
        for key in keys
    )
    only = ", or with ".join(dict.fromkeys(needs))
    return f"is read only with {only} ({', '.join(given)}); leave it out or change that"


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
    if key == "advantage":
        return "no advantage stated"
    return row.needs[key].words(_key(key))


def _key(setting: str) -> str:
    return _KEYS.get(setting, f"train.{setting}")


def _shown(key: str, value: Any) -> str:
    return _ENGINES[value] if key == "use_vllm" else _word(value)


def _word(value: Any) -> str:
    """A value as a recipe writes it."""
    words: Iterable[tuple[Any, str]] = (
        (None, "not stated"),
        (True, "true"),
        (False, "false"),
    )
    for known, word in words:
        if value is known:
            return word
    return (
        ", ".join(map(str, value)) or "empty"
        if isinstance(value, list | tuple)
        else str(value)
    )
