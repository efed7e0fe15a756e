"""Rollouts that end at stop strings, are timed, and are graded as soon as they are
there.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from transformers import StoppingCriteriaList

from alignkit.engines.stopping import StopCriterion, StopStrings
from alignkit.run import deadlines
from alignkit.train.objective import Objective
from alignkit.train.rollouts import Rollouts, own_tokens
from alignkit.train.seam import Seam


class StoppedRollouts(Seam, Rollouts):
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer."""

    mask_truncated_completions: bool  # TRL's

    def __init__(
        self, *args: Any, objective: Objective | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, objective=objective, **kwargs)
        self._stops: tuple[str, ...] = ()
        self._ended: list[bool] = []  # of the newest batch, each response
        # of vLLM's own, those that are special tokens are tokens
        given = (
            self.args.generation_kwargs or {}
            if self.use_vllm
            else self.generation_kwargs
        )
        if stops := given.get("stop" if self.use_vllm else "stop_strings"):
            self._stops = (stops,) if isinstance(stops, str) else tuple(stops)
            shielded = (
                given.get("min_tokens" if self.use_vllm else "min_new_tokens") or 0
            )
            self._stopping = StopStrings(self._stops, self._tokenizer.decode, shielded)
            self._criterion = StopCriterion(self._stopping)
            if not self.use_vllm:
                # TRL hands `generate` the config only, and with stop strings that wants
                # more. Transformers' own criterion also fails on tokenizers that cannot
                # spell its probe text.
                self.generation_config.stop_strings = None
                self.generation_kwargs.pop("stop_strings")
                criteria = StoppingCriteriaList([self._criterion])
                self.model.generate = functools.partial(
                    self.model.generate, stopping_criteria=criteria
                )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm or not self._stops:
            return super()._generate_single_turn(*args, **kwargs)
        self._criterion.start = None
        generated = super()._generate_single_turn(*args, **kwargs)
        # GRPO returns the log-probs beside the ids (None without vLLM), RLOO the ids
        # alone.
        if isinstance(generated, tuple):
            ids, *rest = generated
            return ([self._stopping.cut(row) for row in ids], *rest)
        return [self._stopping.cut(row) for row in generated]

    def _generate(self, prompts: Any) -> Any:
        started = time.perf_counter()
        with deadlines.phase("generation"):
            generated = super()._generate(prompts)  # type: ignore[misc]
        seconds = self._spent(started)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["seconds/generation"].append(seconds)
        # GRPO returns more beside these than RLOO
        responses = generated[2] if len(generated) == 3 else generated[3]
        rows = self._begin(responses, generated[1], round(seconds, 3))
        ended = [self._has_ended(ids) for ids in generated[1]]
        self._ended = ended
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

    def _calculate_rewards(self, inputs: Any, prompts: Any, *given: Any) -> Any:
        more = self.board.seconds(len(prompts)) if self.board is not None else 0.0
        with deadlines.phase("grading", more=more):
            return super()._calculate_rewards(inputs, prompts, *given)  # type: ignore[misc]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """TRL takes for cut off what no EOS ends, so also what a stop string ends: its
        own filter is off while it looks, and ours masks the rows that have not ended.
        """
        if not (self._stops and self.mask_truncated_completions):
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.mask_truncated_completions = False
        try:
            output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        finally:
            self.mask_truncated_completions = True
        self._mask_unended(output)
        return output

    def _mask_unended(self, output: dict[str, Any]) -> None:
        mask = output["completion_mask"]
        ended = torch.tensor(self._ended, device=mask.device)
        for name in ("completion_mask", "tool_mask"):
            if name in output:
                output[name] = output[name] * ended[:, None]
        if "num_items_in_batch" in output:  # GRPO
            count = own_tokens(output).sum()
            output["num_items_in_batch"] = self.accelerator.gather(count).sum()
        if "old_logps" in output:  # RLOO's, summed over each row
            output["old_logps"] = output["old_logps"] * ended

    def _has_ended(self, ids: list[int]) -> bool:
        """By EOS or a stop string, and not by the limit of tokens."""
        if ids[-1] in self.eos_token_ids:
            return True
        return bool(self._stops) and self._stopping.end(ids) > 0

    def _spent(self, started: float) -> float:
        seconds = time.perf_counter() - started
        if self.model.training:
            self._seconds_elsewhere += seconds
        return seconds
