"""The functions of `alignkit.course` under the names that the CS336 alignment
assignment's own tests import.

Copy this file over `tests/adapters.py` of the assignment to run its suite.
"""

from __future__ import annotations

from pathlib import Path

from alignkit import course

COURSE = Path(__file__).resolve().parents[1] / "cs336_alignment"


def alpaca():
    """The training prompt, in the folder of either edition."""
    found = [
        COURSE / folder / "alpaca_sft.prompt"
        for folder in ("prompts", "prompts_safety")
    ]
    return next((path for path in found if path.exists()), found[0]).read_text()


def run_tokenize_prompt_and_output(prompt_strs, output_strs, tokenizer):
    return course.tokenize_prompt_and_output(prompt_strs, output_strs, tokenizer)


def run_compute_group_normalized_rewards(
    reward_fn,
    rollout_responses,
    repeated_ground_truths,
    group_size,
    advantage_eps,
    normalize_by_std,
):
    return course.compute_group_normalized_rewards(
        reward_fn,
        rollout_responses,
        repeated_ground_truths,
        group_size,
        advantage_eps,
        normalize_by_std,
    )


def run_compute_entropy(logits):
    return course.compute_entropy(logits)


def run_get_response_log_probs(model, input_ids, labels, return_token_entropy):
    return course.get_response_log_probs(model, input_ids, labels, return_token_entropy)


def run_compute_naive_policy_gradient_loss(raw_rewards_or_advantages, policy_log_probs):
    return course.compute_naive_policy_gradient_loss(
        raw_rewards_or_advantages, policy_log_probs
    )


def run_compute_grpo_clip_loss(advantages, policy_log_probs, old_log_probs, cliprange):
    return course.compute_grpo_clip_loss(
        advantages, policy_log_probs, old_log_probs, cliprange
    )


def run_compute_policy_gradient_loss(
    policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange
):
    return course.compute_policy_gradient_loss(
        policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange
    )


def run_masked_mean(tensor, mask, dim=None):
    return course.masked_mean(tensor, mask, dim)


def run_sft_microbatch_train_step(
    policy_log_probs, response_mask, gradient_accumulation_steps, normalize_constant=1.0
):
    return course.sft_microbatch_train_step(
        policy_log_probs, response_mask, gradient_accumulation_steps, normalize_constant
    )


def run_grpo_microbatch_train_step(
    policy_log_probs,
    response_mask,
    gradient_accumulation_steps,
    loss_type,
    raw_rewards=None,
    advantages=None,
    old_log_probs=None,
    cliprange=None,
):
    return course.grpo_microbatch_train_step(
        policy_log_probs,
        response_mask,
        gradient_accumulation_steps,
        loss_type,
        raw_rewards,
        advantages,
        old_log_probs,
        cliprange,
    )


def run_masked_normalize(tensor, mask, dim=None, normalize_constant=1.0):
    return course.masked_normalize(tensor, mask, dim, normalize_constant)


def get_packed_sft_dataset(tokenizer, dataset_path, seq_length, shuffle):
    return course.get_packed_sft_dataset(
        tokenizer, dataset_path, seq_length, shuffle, alpaca()
    )


def run_iterate_batches(dataset, batch_size, shuffle):
    return course.iterate_batches(dataset, batch_size, shuffle)


def run_parse_mmlu_response(mmlu_example, model_output):
    return course.parse_mmlu_response(mmlu_example, model_output)


def run_parse_gsm8k_response(model_output):
    return course.parse_gsm8k_response(model_output)


def run_compute_per_instance_dpo_loss(
    lm, lm_ref, tokenizer, beta, prompt, response_chosen, response_rejected
):
    return course.compute_per_instance_dpo_loss(
        lm,
        lm_ref,
        tokenizer,
        beta,
        prompt,
        response_chosen,
        response_rejected,
        alpaca(),
    )
