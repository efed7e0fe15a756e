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
from alignkit.run import new_row
from alignkit.run.rows import Row, plain
from alignkit.types import STATUSES, Score

if TYPE_CHECKING:
    from alignkit.grading import BoundReward, Grader, Grading
    from alignkit.plugins import Registry
    from alignkit.run import Run

LogExtra = Callable[[str, list[Any]], None]  # TRL's: a column of its table
LogMetric = Callable[[str, float], None]  # TRL's
_WORST_FIRST = ("error", "timeout", "unparsed", "wrong", "ok")


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
        grader: Grader,
        run: Run,
        answers: Mapping[str, Answers],
    ) -> None:
        self.rewards = list(rewards)
        self.weights = list(weights)
        self.zero_on_error = dict(zero_on_error)
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
    ) -> list[Row]:
        """Start to grade a batch; TRL asks for the rewards after its log-prob passes.

        Args:
            inputs: TRL's, with the prompt and the number of its `row`.
            completions: what is known of each, its response among it.

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
        grading = {
            reward.name: self.grader.submit(
                reward, responses, truths, prompts, metadatas
            )
            for reward in self.rewards
        }
        self._batch = _Batch(step, kind, batch, grading)
        return batch

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
            row.update(combine(each, self.weights))
            for name, score in each.items():
                fatal = score.status == "error" and not self.zero_on_error.get(name)
                if fatal and failed is None:
                    failed = (name, score)
        log_metric("seconds/reward", batch.seconds)
        log_extra("status", [row["status"] for row in rows])
        counts = Counter(row["status"] for row in rows)
        for status in STATUSES:
            log_metric(f"status/{status}", counts[status] / len(rows))
        # what timed out has none
        for part in sorted({part for row in rows for part in row["parts"]}):
            log_metric(
                f"parts/{part}",
                sum(row["parts"].get(part, 0.0) for row in rows) / len(rows),
            )
        if failed is not None:
            self.run.write_rollouts(batch.step, rows, batch.kind)
            raise WorkError(
                failure(*failed, f"at step {batch.step}", self.run.folder / "rollouts")
            )

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


def combine(scores: Mapping[str, Score], weights: Sequence[float]) -> Row:
    """The rewards of one completion as fields of its row: weighted sum, parts, each
    reward; status, stage and explanation of the worst.
    """
    worst = min(scores.values(), key=lambda s: _WORST_FIRST.index(str(s.status)))
    several = len(scores) > 1
    of = next(name for name, score in scores.items() if score is worst)
    said = worst.explanation
    return {
        "reward": sum(
            w * s.reward for w, s in zip(weights, scores.values(), strict=True)
        ),
        "status": worst.status,
        "stage": worst.stage,
        "explanation": f"{of}: {said}" if several and said else said,
        "parts": {
            part: value for s in scores.values() for part, value in s.parts.items()
        },
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
