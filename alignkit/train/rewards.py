"""Rewards as TRL calls them: graded by the grader, counted by status, written as
rollouts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.data import encode
from alignkit.errors import WorkError
from alignkit.recipe.schema import Sampled
from alignkit.recipe.schema.sections import Reward
from alignkit.run import new_row
from alignkit.run.rows import Row, plain
from alignkit.types import STATUSES, Score

if TYPE_CHECKING:
    from alignkit.grading import BoundReward, Grader, Grading
    from alignkit.grading.bound import Graded
    from alignkit.plugins import Registry
    from alignkit.run import Run

LogExtra = Callable[[str, list[Any]], None]  # TRL's: a column of its table
LogMetric = Callable[[str, float], None]  # TRL's


@dataclass(frozen=True)
class Answers:
    """What the rewards need to know of the rows that a trainer draws prompts from."""

    rows: Sequence[Mapping[str, Any]]
    spec: Mapping[str, Any]  # what the recipe says of the data set

    def fields(self, number: int) -> Row:
        """The part of a rollout's row that comes from the data set."""
        row = self.rows[number]
        known: Row = {"truth": row.get("truth"), "metadata": encode.metadata(row)}
        return {**plain(known), "source": encode.source(row, number, self.spec)}


@dataclass
class _Batch:
    """A generation batch on its way through grading."""

    step: int
    kind: str
    rows: list[Row]
    grading: dict[str, Grading]
    scores: dict[str, list[Score]] = field(default_factory=dict)
    seconds: float = 0.0  # waited for grades


class RewardBoard:
    """The rewards of a run, and its rollouts. A trainer calls `begin` once a batch is
    generated, TRL the `functions`, each of which grades the whole batch, and the
    trainer `finish` once it has the advantages.

    Args:
        verdict: the reward that says what counts as correct.
        answers: of the kinds of rollouts, `step` (trained on) and `validation`.

    Raises:
        WorkError: a reward failed on a sample and the recipe says `on_error: stop`; the
            sample is in the rollouts.
    """

    def __init__(
        self,
        rewards: Sequence[BoundReward],
        weights: Sequence[float],
        zero_on_error: Mapping[str, bool],
        verdict: str,
        grader: Grader,
        run: Run,
        answers: Mapping[str, Answers],
    ) -> None:
        self.rewards = list(rewards)
        self.weights = list(weights)
        self.zero_on_error = dict(zero_on_error)
        self.verdict = verdict
        self.grader = grader
        self.run = run
        self.answers = answers
        self.functions = [self._as_trl(reward) for reward in self.rewards]
        self._batch: _Batch | None = None
        self._groups: Counter[tuple[str, int]] = Counter()  # written of kind and step

    def _as_trl(self, reward: BoundReward) -> Any:
        def function(prompts: list[Any], **columns: Any) -> list[float]:
            return self._grade(reward, columns["log_extra"], columns["log_metric"])

        function.__name__ = reward.name
        return function

    def begin(
        self,
        inputs: Sequence[Mapping[str, Any]],
        completions: Sequence[Row],
        step: int,
        kind: str,
        outcome: Sequence[Graded] | None = None,
    ) -> list[Row]:
        """Start to grade a batch; TRL asks for the rewards after its log-prob passes.

        Args:
            inputs: TRL's, with the prompt and the number of its `row`.
            completions: what is known of each, its response among it.
            outcome: what the reward `verdict` said of them, where it was asked.

        Returns:
            The rollouts as they will be written.
        """
        answers = self.answers[kind]
        known = {n: answers.fields(n) for n in {given["row"] for given in inputs}}
        batch = [
            new_row(
                {
                    "step": step,
                    "prompt": given["prompt"],
                    **known[given["row"]],
                    **completion,
                }
            )
            for given, completion in zip(inputs, completions, strict=True)
        ]
        responses = [row["response"] for row in batch]
        truths = [row["truth"] for row in batch]
        prompts = [row["prompt"] for row in batch]
        metadatas = [row["metadata"] for row in batch]
        tokens = [row["tokens"] for row in batch]
        grading = {
            reward.name: self.grader.submit(
                reward, responses, truths, prompts, metadatas, tokens
            )
            for reward in self.rewards
            if outcome is None or reward.name != self.verdict
        }
        if outcome is not None:
            from alignkit.grading import Grading

            grading[self.verdict] = Grading(lambda: list(outcome))
        self._batch = _Batch(step, kind, batch, grading)
        return batch

    def seconds(self, count: int) -> float:
        """What the workers may take for so many samples by their own deadlines, with
        which ours shall not interfere.
        """
        pooled = [r.deadline for r in self.rewards if r.where == "pool"]
        return count * sum(pooled)

    def _grade(
        self, reward: BoundReward, log_extra: LogExtra, log_metric: LogMetric
    ) -> list[float]:
        batch = self._batch
        assert batch is not None, "TRL asks for rewards of a batch that has begun"
        started = time.perf_counter()
        graded = batch.grading[reward.name].result()
        batch.seconds += time.perf_counter() - started
        batch.scores[reward.name] = [g.score for g in graded]
        if len(batch.scores) == len(self.rewards):
            self._combine(batch, log_extra, log_metric)
        return [g.score.reward for g in graded]

    def _combine(
        self, batch: _Batch, log_extra: LogExtra, log_metric: LogMetric
    ) -> None:
        """All rewards of the batch are in: log, and stop if one of them failed."""
        rows, failed = batch.rows, None
        for i, row in enumerate(rows):
            each = {
                reward.name: batch.scores[reward.name][i] for reward in self.rewards
            }
            row.update(combine(each, self.weights, self.verdict))
            for name, score in each.items():
                fatal = score.status == "error" and not self.zero_on_error.get(name)
                if fatal and failed is None:
                    failed = (name, score)
        log_metric("seconds/reward", batch.seconds)
        log_extra("status", [row["status"] for row in rows])
        for name, value in _shares([row["status"] for row in rows]).items():
            log_metric(f"status/{name}", value)
        for name, value in _means([row["parts"] for row in rows]).items():
            log_metric(f"parts/{name}", value)
        if len(self.rewards) > 1:
            self._log_each(batch, log_metric)
        if failed is not None:
            self.run.write_rollouts(batch.step, rows, batch.kind)
            raise WorkError(
                failure(*failed, f"at step {batch.step}", self.run.folder / "rollouts")
            )

    def _log_each(self, batch: _Batch, log_metric: LogMetric) -> None:
        """Statuses and parts of every reward under its own name."""
        for name, scores in batch.scores.items():
            for status, value in _shares([str(s.status) for s in scores]).items():
                log_metric(f"status/{name}/{status}", value)
            for part, value in _means([s.parts for s in scores]).items():
                log_metric(f"parts/{name}/{part}", value)

    def finish(self, rows: Sequence[Row], groups: int) -> None:
        """Write the batch with what was not known before, such as advantages.

        Args:
            rows: the further fields of each completion, `group` counted in this batch.
            groups: how many the batch has, on all processes.
        """
        batch, self._batch = self._batch, None
        assert batch is not None, "a batch is finished once"
        written = self._groups[batch.kind, batch.step]
        self._groups[batch.kind, batch.step] += groups
        for row, further in zip(batch.rows, rows, strict=True):
            row.update(further)
            row["group"] = written + (row["group"] or 0)
        self.run.write_rollouts(batch.step, batch.rows, batch.kind)


def _shares(statuses: Sequence[str | None]) -> dict[str, float]:
    counts = Counter(statuses)
    return {status: counts[status] / len(statuses) for status in STATUSES}


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each part; what timed out has none, and counts as 0."""
    names = sorted({name for each in parts for name in each})
    return {n: sum(each.get(n, 0.0) for each in parts) / len(parts) for n in names}


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


def deciding(rewards: Mapping[str, Reward]) -> str:
    """The reward whose verdict says what counts as correct: the one that the recipe
    names, else the first of the greatest weight.
    """
    named = [name for name, reward in rewards.items() if reward.decides]
    return named[0] if named else max(rewards, key=lambda name: rewards[name].weight)


def combine(scores: Mapping[str, Score], weights: Sequence[float], verdict: str) -> Row:
    """The rewards of one completion as fields of its row: weighted sum, each reward by
    itself; status, stage and explanation of the reward `verdict`; the parts of all, its
    own before others of the same name.
    """
    said = scores[verdict]
    parts = {part: value for s in scores.values() for part, value in s.parts.items()}
    weighted = zip(weights, scores.values(), strict=True)
    return {
        "reward": sum(weight * score.reward for weight, score in weighted if weight),
        "status": said.status,
        "stage": said.stage,
        "explanation": said.explanation,
        "parts": {**parts, **said.parts},
        "rewards": {
            name: {
                "reward": s.reward,
                "status": s.status,
                "parts": dict(s.parts),
                "stage": s.stage,
                "explanation": s.explanation,
            }
            for name, s in scores.items()
        },
    }
