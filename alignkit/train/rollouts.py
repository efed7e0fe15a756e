"""How rollouts are generated, graded and written."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteriaList

from alignkit.engines.stopping import StopStrings
from alignkit.errors import InputError
from alignkit.train.objective import Objective
from alignkit.train.seam import Seam
from alignkit.train.synced import SyncedRollouts

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.run.rows import Row
    from alignkit.train.rewards import RewardBoard


class Rollouts(Seam, SyncedRollouts):
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer: how rollouts are generated,
    graded and written.

    Takes one more keyword, `board`: it begins to grade as soon as a batch is generated,
    while TRL computes log-probs, and writes the rollouts once there are advantages.
    """

    _asked: Sequence[Mapping[str, Any]] = ()
    # TRL's log-prob passes over the batch that is being scored: (B, T) log-probs, and
    # of the policy's own pass entropies
    _scored: list[tuple[Tensor, Tensor | None]] | None = None

    def __init__(
        self,
        *args: Any,
        objective: Objective | None = None,
        board: RewardBoard | None = None,
        **kwargs: Any,
    ) -> None:
        self.board = board
        super().__init__(*args, objective=objective, **kwargs)
        self._stops: tuple[str, ...] = ()
        given = (
            self.vllm_generation.generation_kwargs
            if self.use_vllm
            else self.generation_kwargs
        )
        if stops := given.get("stop" if self.use_vllm else "stop_strings"):
            self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
            if self.mask_truncated_completions:
                raise InputError(
                    "train.mask_truncated_completions masks every response that does"
                    " not end with the EOS token, so also those ended by"
                    f" generation.stop {list(self._stops)}; leave one of the two out"
                )
            shielded = (
                given.get("min_tokens" if self.use_vllm else "min_new_tokens") or 0
            )
            self._stopping = StopStrings(self._tokenizer, self._stops, shielded)
            if not self.use_vllm:
                # TRL hands `generate` the config only, and with stop strings that wants
                # more. Transformers' own criterion also fails on tokenizers that cannot
                # spell its probe text.
                self.generation_config.stop_strings = None
                self.generation_kwargs.pop("stop_strings")
                criteria = StoppingCriteriaList([self._stopping])
                self.model.generate = functools.partial(
                    self.model.generate, stopping_criteria=criteria
                )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm or not self._stops:
            return super()._generate_single_turn(*args, **kwargs)
        self._stopping.start = None
        generated = super()._generate_single_turn(*args, **kwargs)
        # GRPO returns the log-probs beside the ids (None without vLLM), RLOO the ids
        # alone.
        if isinstance(generated, tuple):
            ids, *rest = generated
            return ([self._stopping.cut(row) for row in ids], *rest)
        return [self._stopping.cut(row) for row in generated]

    def _generate(self, prompts: Any) -> Any:
        started = time.perf_counter()
        generated = super()._generate(prompts)  # type: ignore[misc]
        seconds = self._spent(started)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["seconds/generation"].append(seconds)
        # GRPO returns more beside these than RLOO
        responses = generated[2] if len(generated) == 3 else generated[3]
        rows = self._begin(responses, generated[1], round(seconds, 3))
        ended = [self._has_ended(ids) for ids in generated[1]]
        for row, done in zip(rows, ended, strict=bool(rows)):
            row["finish_reason"] = "stop" if done else "length"
        if self._stops:  # TRL counts a response as cut off unless EOS ends it
            cut = torch.tensor(
                [not done for done in ended], device=self.accelerator.device
            )
            metrics["completions/clipped_ratio"][-1] = (
                self.accelerator.gather(cut).float().mean().item()
            )
            for name in ("mean", "min", "max"):
                metrics.pop(f"completions/{name}_terminated_length")
        return generated

    def _begin(
        self, completions: Sequence[Any], ids: Sequence[Sequence[int]], seconds: float
    ) -> list[Row]:
        """Start the grading; the rollouts, none without a board."""
        if self.board is None:
            return []
        known: list[Row] = [
            {**_said(said), "tokens": len(tokens), "seconds": seconds}
            for said, tokens in zip(completions, ids, strict=True)
        ]
        step = self.state.global_step
        if self.model.training:
            return self.board.begin(self._asked, known, step + 1, "step")
        return self.board.begin(self._asked, known, step, "validation")

    def _has_ended(self, ids: Sequence[int]) -> bool:
        """By EOS or a stop string, and not by the limit of tokens."""
        if ids[-1] in self.eos_token_ids:
            return True
        return bool(self._stops) and self._stopping.end(ids) > 0

    def _spent(self, started: float) -> float:
        seconds = time.perf_counter() - started
        if self.model.training:
            self._seconds_elsewhere += seconds
        return seconds

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        started = time.perf_counter()
        rewards = super()._calculate_rewards(  # type: ignore[misc]
            inputs, prompts, completions, completion_ids_list
        )
        self._spent(started)
        self._rewards = rewards  # (N, number of rewards), gathered over the processes
        self._note_lengths(completion_ids_list)
        return rewards

    def _note_lengths(self, completion_ids: Sequence[Sequence[int]]) -> None:
        """Mean response length of correct and of wrong responses.

        Correct is what a reward function calls `ok` through TRL's `log_extra("status",
        [...])`, or else what has a reward above 0.
        """
        lengths = torch.tensor(
            [float(len(ids)) for ids in completion_ids], device=self.accelerator.device
        )
        statuses = self._pending_extra_logs.get("status")
        if statuses is None:
            correct = self._total_rewards()[self._own(len(lengths))] > 0
        else:
            correct = torch.tensor(
                [status == "ok" for status in statuses], device=lengths.device
            )
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, kept in (("correct", correct), ("wrong", ~correct)):
            local = torch.stack([lengths[kept].sum(), kept.sum()])
            total, count = self.accelerator.reduce(local, reduction="sum").tolist()
            if count:
                metrics[f"completions/mean_length_{name}"].append(total / count)

    def _total_rewards(self) -> Tensor:
        """(N,) weighted sums over the reward functions, NaN where all of them returned
        None.
        """
        total = (self._rewards * self.reward_weights.to(self._rewards.device)).nansum(
            dim=1
        )
        return total.masked_fill(self._rewards.isnan().all(dim=1), torch.nan)

    def _own(self, count: int) -> slice:
        return slice(
            self.accelerator.process_index * count,
            (self.accelerator.process_index + 1) * count,
        )

    def _get_per_token_logps_and_entropies(
        self, model: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self._scored is None:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)  # type: ignore[misc]
        own = self.board is not None and not self._scored and model is self.model
        result = super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
            model, *args, **{**kwargs, "compute_entropy": own}
        )
        self._scored.append(result[:2])
        return result

    def _finish(self, board: RewardBoard, output: Mapping[str, Any]) -> None:
        """Write the rollouts of this process. Groups are adjacent over all processes."""
        advantages = output["advantages"].tolist()
        own = self._own(len(advantages))
        size = self._group_size()
        old, entropies = self._old_logps(output), None
        if old is None:
            old = output.get("sampling_per_token_logps")  # GRPO with vLLM
        elif self._scored:
            entropies = self._scored[0][1]
        mask = completion_mask(output)
        columns = zip(
            range(own.start, own.stop),
            advantages,
            _means(old, mask),
            _means(entropies, mask),
            strict=True,
        )
        rows: list[Row] = [
            {
                "group": number // size,
                "sample": number % size,
                "advantage": advantage,
                "mean_logprob": logp,
                "mean_entropy": entropy,
            }
            for number, advantage, logp, entropy in columns
        ]
        board.finish(rows, len(rows) * self.accelerator.num_processes // size)

    def _old_logps(self, output: Mapping[str, Any]) -> Tensor | None:
        """(B, T) log-probs under the policy that sampled; GRPO needs none on-policy."""
        return output.get("old_per_token_logps")

    def _group_size(self) -> int:
        return (
            self.num_generations if self.model.training else self.num_generations_eval
        )


def _said(completion: Any) -> Row:
    """A completion of TRL, a text or messages, as fields of a row."""
    if isinstance(completion, str):
        return {"response": completion}
    turns = None if len(completion) == 1 else completion
    return {"response": completion[-1]["content"], "turns": turns}


def _means(values: Tensor | None, mask: Tensor) -> list[float] | list[None]:
    """(B, T) to the mean over each row's tokens; NaN where it has none (masked out)."""
    if values is None:
        return [None] * len(mask)
    total = values.float().masked_fill(~mask, 0).sum(dim=1)
    return (total / mask.sum(dim=1)).tolist()


def completion_mask(inputs: Mapping[str, Any]) -> Tensor:
    """(B, T) bool: completion tokens of the model, without those of a tool."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()
