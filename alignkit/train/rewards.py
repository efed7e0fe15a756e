"""Rewards as TRL calls them: graded by the grader, counted by status, written as
rollouts.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import WorkError
from alignkit.recipe.schema import Sampled
from alignkit.types import STATUSES, Score

if TYPE_CHECKING:
    from alignkit.grading import BoundReward, Grader, Grading
    from alignkit.plugins import Registry
    from alignkit.run import Run

_WORST_FIRST = ("error", "timeout", "unparsed", "wrong", "ok")


class RewardBoard:
    """The rewards of a run. `functions` are what TRL gets; each call grades the whole
    batch.

    Raises:
        WorkError: a reward failed on a sample and the recipe says `on_error: stop`; the
            sample is in the rollouts.
    """

    def __init__(
        self,
        rewards: Sequence[BoundReward],
        weights: Sequence[float],
        zero_on_error: Mapping[str, bool],
        grader: Grader,
        run: Run,
    ) -> None:
        self.rewards = list(rewards)
        self.weights = list(weights)
        self.zero_on_error = dict(zero_on_error)
        self.grader = grader
        self.run = run
        self.functions = [self._as_trl(reward) for reward in self.rewards]
        self.trainer: Any = None  # made later
        self._started: dict[str, Grading] = {}
        self._scores: dict[str, list[Score]] = {}
        self._seconds = 0.0

    def _as_trl(self, reward: BoundReward) -> Any:
        def function(
            prompts: list[Any], completions: list[Any], **columns: Any
        ) -> list[float]:
            return self._grade(reward, prompts, completions, columns)

        function.__name__ = reward.name
        return function

    def begin(
        self, rows: Sequence[Mapping[str, Any]], completions: Sequence[Any]
    ) -> None:
        """Start to grade a batch; TRL asks for the rewards after its log-prob passes."""
        truths = [json.loads(row["truth"]) for row in rows]
        metadatas = [json.loads(row["metadata"]) for row in rows]
        prompts = [row["prompt"] for row in rows]
        for reward in self.rewards:
            self._started[reward.name] = self.grader.submit(
                reward, _texts(completions), truths, prompts, metadatas
            )

    def _grade(
        self,
        reward: BoundReward,
        prompts: list[Any],
        completions: list[Any],
        columns: dict,
    ) -> list[float]:
        responses = _texts(completions)
        truths = [json.loads(text) for text in columns["truth"]]
        metadatas = [json.loads(text) for text in columns["metadata"]]
        started = time.perf_counter()
        graded = self._started.pop(reward.name).result()
        self._seconds += time.perf_counter() - started
        self._scores[reward.name] = [g.score for g in graded]
        if len(self._scores) == len(self.rewards):
            self._finish(prompts, responses, truths, metadatas, columns)
        return [g.score.reward for g in graded]

    def _finish(
        self,
        prompts: list[Any],
        responses: list[str],
        truths: list[Any],
        metadatas: list[Any],
        columns: dict[str, Any],
    ) -> None:
        """All rewards of the batch are in: log, write, and stop if one of them failed."""
        scores, self._scores = self._scores, {}
        seconds, self._seconds = self._seconds, 0.0
        # TRL's own way to tell
        validation = self.trainer is not None and not self.trainer.model.training
        step = columns["trainer_state"].global_step + (0 if validation else 1)
        log_metric = columns["log_metric"]
        log_metric("seconds/reward", seconds)
        rows, failed = [], None
        for i, response in enumerate(responses):
            each = {reward.name: scores[reward.name][i] for reward in self.rewards}
            row = {
                "step": step,
                "prompt": prompts[i],
                "response": response,
                "truth": truths[i],
                **combine(each, self.weights),
                "tokens": len(columns["completion_ids"][i]),
                "metadata": metadatas[i],
            }
            for name, score in each.items():
                if (
                    score.status == "error"
                    and not self.zero_on_error.get(name, False)
                    and failed is None
                ):
                    failed = (name, score)
            rows.append(row)
        columns["log_extra"]("status", [row["status"] for row in rows])
        counts = Counter(row["status"] for row in rows)
        for status in STATUSES:
            log_metric(f"status/{status}", counts[status] / len(rows))
        # what timed out has none
        for part in sorted({part for row in rows for part in row["parts"]}):
            log_metric(
                f"parts/{part}",
                sum(row["parts"].get(part, 0.0) for row in rows) / len(rows),
            )
        self.run.write_rollouts(step, rows, "validation" if validation else "step")
        if failed is not None:
            raise WorkError(
                failure(*failed, f"at step {step}", self.run.folder / "rollouts")
            )


def failure(name: str, score: Score, when: str, place: Path) -> str:
    """What is said of a reward that failed on a sample, which is in `place`."""
    return (
        f"reward '{name}' failed {when}: {score.explanation.strip()[-600:]}\nthe sample"
        f" is in {place}; mend the reward, or say in the recipe `rewards: {{{name}:"
        " {on_error: zero}}`"
    )


def bound_rewards(config: Sampled, registry: Registry) -> dict[str, BoundReward]:
    """The recipe's rewards with their options and deadlines, by the recipe's names."""
    from alignkit.grading import bind_plugin

    found = {}
    for name, entry in config.rewards.items():
        reward = bind_plugin(registry.get("reward", name), entry.options)
        found[name] = (
            reward
            if entry.deadline is None
            else replace(reward, deadline=entry.deadline)
        )
    return found


def combine(scores: Mapping[str, Score], weights: Sequence[float]) -> dict[str, Any]:
    """The rewards of one completion as fields of its row: weighted sum, worst status,
    parts, each reward.
    """
    found = {
        "reward": sum(
            w * s.reward for w, s in zip(weights, scores.values(), strict=True)
        ),
        "status": min((str(s.status) for s in scores.values()), key=_WORST_FIRST.index),
        "parts": {
            part: value for s in scores.values() for part, value in s.parts.items()
        },
        "rewards": {
            n: {"reward": s.reward, "status": s.status, "stage": s.stage}
            for n, s in scores.items()
        },
    }
    failed = [
        f"{n}: {s.explanation}"
        for n, s in scores.items()
        if s.status in ("error", "timeout")
    ]
    return {**found, "explanation": failed[0]} if failed else found


def _texts(completions: Sequence[Any]) -> list[str]:
    return [c if isinstance(c, str) else c[-1]["content"] for c in completions]
