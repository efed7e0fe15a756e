"""GRPO and RLOO with loss and advantage plugins."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOTrainer, RLOOTrainer

from alignkit.sampling import DEFAULTS, OPTIONS, Option
from alignkit.train.groups import group_numbers, response_facts
from alignkit.train.objective import Objective, Step, in_force
from alignkit.train.redraw import RedrawnRollouts
from alignkit.train.rollouts import own_tokens
from alignkit.types import PolicyBatch

if TYPE_CHECKING:
    from torch import Tensor

# What TRL's forward pass takes beside the tokens (images and their layout).
_MODALITIES = (
    *(
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
    ),
    *("image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)


class _Policy(RedrawnRollouts):
    """What GRPO and RLOO share."""

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        started = time.perf_counter()
        rewards = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._spent(started)
        self._rewards = rewards  # (N, number of rewards), gathered over the processes
        self._note_responses(completion_ids_list)
        return rewards

    def _sizes(self, inputs: Any) -> tuple[float, float]:
        mask = own_tokens(inputs)
        return float(mask.sum()), float(len(mask))

    def _note_responses(self, completion_ids: Sequence[Sequence[int]]) -> None:
        """Numbers of responses and groups; lengths of correct and of wrong responses.

        Correct is what a reward function calls `ok` through TRL's `log_extra("status",
        [...])`, or else what has a reward above 0.
        """
        statuses = self._pending_extra_logs.get("status")
        rewards = self._total_rewards()
        if statuses is None:
            correct = rewards[self._own(len(completion_ids))] > 0
        else:
            right = [float(status == "ok") for status in statuses]
            correct = torch.tensor(right, device=self.accelerator.device)
        facts = response_facts(completion_ids, correct)
        self._facts = self.accelerator.gather(facts)  # (N, 4)
        lengths, right = self._facts[:, 0], self._facts[:, 2] > 0
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, chosen in (("correct", right), ("wrong", ~right)):
            if chosen.any():
                mean = lengths[chosen].mean().item()
                metrics[f"completions/mean_length_{name}"].append(mean)

    def _note_groups(self) -> None:
        """In place of TRL's numbers of the same names."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        rewards = self._total_rewards()
        numbers = group_numbers(self._facts, rewards, self._group_size())
        for name, value in numbers.items():
            if name in ("reward_std", "frac_reward_zero_std"):
                metrics[name].pop()
            metrics[name].append(value)

    def _total_rewards(self) -> Tensor:
        """(N,) weighted sums over the reward functions, NaN where all of them returned
        None.
        """
        total = (self._rewards * self.reward_weights.to(self._rewards.device)).nansum(
            dim=1
        )
        return total.masked_fill(self._rewards.isnan().all(dim=1), torch.nan)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._asked = inputs
        self._scored = []
        try:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            self._note_groups()
            if self.objective is not None:
                self._apply_objective(self.objective, inputs, output)
            if self.board is not None:
                self._finish(self.board, output)
        finally:
            self._scored = None
        return output

    def _apply_objective(
        self, objective: Objective, inputs: Sequence[Any], output: dict[str, Any]
    ) -> None:
        rewards = self._with_penalty(self._total_rewards(), output)
        own = self._own(len(inputs))
        output["rewards"] = rewards[own].nan_to_num(0)
        if objective.advantage is not None:
            weights = self.reward_weights.to(self._rewards.device)
            each = self._rewards, weights
            advantages = objective.advantages(rewards, self._group_size(), each)
            output["advantages"] = advantages[own]
            # TRL's own, of this batch, stand at the end
            logged = self._logs["advantages"]
            for _ in range(min(len(advantages), len(logged))):
                logged.pop()
            logged.extend(advantages.tolist())

    def _with_penalty(self, rewards: Tensor, output: dict[str, Any]) -> Tensor:
        return rewards

    def _measure(self, rows: int, mask: Tensor) -> Step:
        if self.model.training:
            # Every microbatch of this optimizer step is generated already
            # (`Objective.settled` saw to that for `token`).
            buffered = self._buffered_inputs
            window = [
                buffered[(self._step + i) % len(buffered)] for i in range(self._window)
            ]
            masks = [own_tokens(inputs) for inputs in window]
            tokens = torch.stack([mask.sum() for mask in masks]).sum()
            rows = sum(len(mask) for mask in masks)  # one may be computed in parts
        else:
            tokens = mask.sum()
        return self._total(tokens, rows, mask.device)

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        """The seam: the plugin's loss on (B, T) log-probs of the completion tokens."""
        if self.objective is None:
            return super()._compute_loss(model, inputs)  # type: ignore[misc]
        mask = own_tokens(inputs)
        logps, entropies, aux_loss = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            mask.shape[1],
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **{name: inputs.get(name) for name in _MODALITIES},
        )
        batch = PolicyBatch(
            logps=logps,
            # absent when on-policy
            old_logps=inputs.get("old_per_token_logps", logps.detach()),
            mask=mask,
            advantages=inputs["advantages"],
            rewards=inputs["rewards"],
            ref_logps=inputs.get("ref_per_token_logps"),
            entropies=entropies if self._wants_entropies() else entropies.detach(),
        )
        if (weights := inputs.get("importance_sampling_ratio")) is not None:
            self._note_weights(weights, mask)
        self._note("nll", -logps, mask)
        self._note("entropy", entropies, mask)
        self._note("ratio", (logps.detach() - batch.old_logps).exp(), mask)
        loss = self._apply(
            batch,
            (logps,),
            mask,
            ratio=inputs.get("importance_sampling_ratio"),
            penalty=self._penalty(batch),
        )
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * aux_loss / (
                self._window if self.model.training else 1
            )
        return loss

    def _wants_entropies(self) -> bool:
        return self.objective is not None and self.objective.loss.entropy_gradient

    def _note_weights(self, weights: Tensor, mask: Tensor) -> None:
        """The share of what the correction (B, T) or (B, 1) leaves out, and the
        effective sample size as a share of the tokens or rows.
        """
        flat = weights[mask] if weights.shape == mask.shape else weights.flatten()
        left = flat.square().sum() * len(flat)
        self._note("sampling/masked", (flat == 0).float().mean(), mask)
        share = flat.sum() ** 2 / left.clamp(min=1e-12)
        self._note("sampling/effective_sample_size", share, mask)

    def _penalty(self, batch: PolicyBatch) -> Tensor | None:
        return None

    def _in_force(self, name: str, option: Option) -> Any:
        """The value of a sampling option that the engine of the rollouts works with."""
        if not self.use_vllm:
            value = vars(self.generation_config)[name] if name != "stop" else None
        elif option.trl:
            value = vars(self.vllm_generation)[option.trl]
        else:
            value = self.vllm_generation.generation_kwargs.get(option.vllm)
        return DEFAULTS[name] if value is None else value

    def _observe(self) -> dict[str, Any]:
        seen = super()._observe()
        seen["generation.engine"] = "vllm" if self.use_vllm else "transformers"
        for name, option in OPTIONS.items():
            seen[f"generation.{name}"] = self._in_force(name, option)
        seen["generation.stop"] = list(self._stops)
        seen["generation.resample_equal_groups"] = self.redraws
        seen |= {"train.num_generations": self.num_generations}
        if self.objective is not None and self.objective.advantage is not None:
            advantage = self.objective.advantage
            options = in_force(advantage.function, self.objective.advantage_options)
            seen |= {
                "advantage.name": advantage.name,
                **{f"advantage.{k}": v for k, v in options.items()},
            }
        return seen


class AlignGRPOTrainer(_Policy, GRPOTrainer):
    """TRL's GRPOTrainer with an objective. `train.beta` adds TRL's KL term to the
    plugin's loss per token.
    """

    method = "grpo"

    def _penalty(self, batch: PolicyBatch) -> Tensor | None:
        if self.beta == 0.0:
            return None
        assert batch.ref_logps is not None
        gap = batch.ref_logps - batch.logps
        # the k3 estimator: unbiased and never negative (Schulman, 2020)
        kl = gap.exp() - gap - 1
        # TRL's default: DeepSeek-V3.2, arXiv:2512.02556
        if self.args.use_bias_correction_kl:
            kl = kl * self._kl_ratio(batch)
        self._note("kl", kl, batch.mask)
        return self.beta * kl

    def _kl_ratio(self, batch: PolicyBatch) -> Tensor:
        """Of each token (B, T), or of each sequence (B, 1): the geometric mean."""
        gaps = batch.logps - batch.old_logps
        if self.importance_sampling_level == "token":
            return gaps.exp()
        count = batch.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (gaps.masked_fill(~batch.mask, 0).sum(dim=1, keepdim=True) / count).exp()

    def _observe(self) -> dict[str, Any]:
        own = (
            {"loss.loss_type": self.loss_type, **_clip_range(self)}
            if self.objective is None
            else {}
        )
        return super()._observe() | own | {"train.beta": self.beta}


class AlignRLOOTrainer(_Policy, RLOOTrainer):
    """TRL's RLOOTrainer with an objective. As in TRL, `train.beta` puts the KL into the
    reward.
    """

    method = "rloo"

    def _old_logps(self, output: Mapping[str, Any]) -> Tensor | None:
        assert self._scored
        return self._scored[0][0]

    def _with_penalty(self, rewards: Tensor, output: dict[str, Any]) -> Tensor:
        # TRL keeps sums per sequence; a plugin gets the old log-probs per token.
        assert self._scored
        old = output["old_per_token_logps"] = self._scored[0][0]
        if self.reward_clip_range:
            rewards = rewards.clamp(*self.reward_clip_range)
        if self.beta != 0.0:
            reference = output["ref_per_token_logps"] = self._scored[1][0]
            kl = ((old - reference) * output["completion_mask"]).sum(-1)
            rewards = rewards - self.beta * self.accelerator.gather(kl)
        return rewards

    def _observe(self) -> dict[str, Any]:
        own = _clip_range(self) if self.objective is None else {}
        return super()._observe() | own | {"train.beta": self.beta}


def _clip_range(trainer: Any) -> dict[str, float]:
    return {
        "train.epsilon": trainer.epsilon_low,
        "train.epsilon_high": trainer.epsilon_high,
    }
