"""The functions of `alignkit.course.edition_2026` under the names that the CS336
alignment assignment's tests of 2026 import.

Copy this file over `tests/adapters.py` of the assignment to run its suite.
"""

from __future__ import annotations

import functools
from pathlib import Path

from alignkit.course import edition_2026 as course

ALPACA = (
    Path(__file__).resolve().parents[1]
    / "cs336_alignment"
    / "prompts_safety"
    / "alpaca_sft.prompt"
)

run_tokenize_prompt_and_output = course.tokenize_prompt_and_output
run_get_response_log_probs = course.get_response_log_probs
run_compute_rollout_rewards = course.compute_rollout_rewards
run_compute_group_normalized_rewards = course.compute_group_normalized_rewards
run_compute_policy_gradient_loss = course.compute_policy_gradient_loss
run_aggregate_loss_across_microbatch = course.aggregate_loss_across_microbatch
run_grpo_train_step = course.grpo_train_step
run_iterate_batches = course.iterate_batches
run_parse_mmlu_response = course.parse_mmlu_response
run_parse_gsm8k_response = course.parse_gsm8k_response


def get_packed_sft_dataset(tokenizer, dataset_path, seq_length, shuffle):
    return course.get_packed_sft_dataset(
        tokenizer, dataset_path, seq_length, shuffle, ALPACA.read_text()
    )


@functools.wraps(course.compute_per_instance_dpo_loss)
def run_compute_per_instance_dpo_loss(*pair, **named):
    return course.compute_per_instance_dpo_loss(
        *pair, **named, template=ALPACA.read_text()
    )
