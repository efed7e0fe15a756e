"""The functions of the Stanford CS336 alignment assignment that no trainer uses, with
its signatures; those that trainers use as well stand in `functional`.

Shapes: B sequences, T tokens of the padded sequence, V words, N = prompts x G
completions. A mask may be of any dtype; a value is counted where its mask is not zero.
Padding is never read: it may hold anything, NaN too.
"""

from __future__ import annotations

from alignkit.course.policy import (
    POLICY_GRADIENT_LOSSES,
    compute_group_normalized_rewards,
    compute_policy_gradient_loss,
    grpo_microbatch_train_step,
)
from alignkit.course.sequences import (
    compute_per_instance_dpo_loss,
    get_packed_sft_dataset,
    get_response_log_probs,
    iterate_batches,
    sft_microbatch_train_step,
    tokenize_prompt_and_output,
)
from alignkit.functional import (
    compute_entropy,
    compute_grpo_clip_loss,
    compute_grpo_no_clip_loss,
    compute_naive_policy_gradient_loss,
    dpo_loss,
    group_normalize,
    masked_mean,
    masked_normalize,
)
from alignkit.kits.builtin.evals._mmlu import parse_mmlu_response
from alignkit.kits.builtin.evals._numbers import parse_gsm8k_response

# every function of the assignment, wherever it stands
__all__ = [
    "POLICY_GRADIENT_LOSSES",
    "compute_entropy",
    "compute_group_normalized_rewards",
    "compute_grpo_clip_loss",
    "compute_grpo_no_clip_loss",
    "compute_naive_policy_gradient_loss",
    "compute_per_instance_dpo_loss",
    "compute_policy_gradient_loss",
    "dpo_loss",
    "get_packed_sft_dataset",
    "get_response_log_probs",
    "group_normalize",
    "grpo_microbatch_train_step",
    "iterate_batches",
    "masked_mean",
    "masked_normalize",
    "parse_gsm8k_response",
    "parse_mmlu_response",
    "sft_microbatch_train_step",
    "tokenize_prompt_and_output",
]
