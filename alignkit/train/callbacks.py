"""What happens during training beside TRL: metrics, progress, evals in training, the
kit's callbacks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from alignkit.proofs.settings import compare, requested, unproven
from alignkit.recipe.schema import Policy, Stepped
from alignkit.terminal import Progress
from alignkit.train.proving.settings import in_force
from alignkit.train.proving.synced import prove_sync
from alignkit.train.resumed import seconds_logged
from alignkit.train.stops import StopCallback
from alignkit.train.update import Update

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.proofs.record import Finding, Proofs
    from alignkit.run import Run
    from alignkit.train.proving.subject import Subject
    from alignkit.train.seam import Seam
    from alignkit.train.watchers import Watchers

# TRL's names on the left; docs/metrics.md lists ours.
NAMES = {
    "completions/mean_length": "response_length",
    "completions/mean_length_correct": "response_length_correct",
    "completions/mean_length_wrong": "response_length_wrong",
    "completions/clipped_ratio": "truncated",
    "clip_ratio/region_mean": "clip_fraction",
    "frac_reward_zero_std": "groups_without_variance",
}


class MetricsCallback(TrainerCallback):
    """Writes TRL's logs to metrics.jsonl under `train/…` and `validation/…`, and tells
    the kit's callbacks.
    """

    def __init__(self, run: Run, watchers: Watchers) -> None:
        self.run = run
        self.watchers = watchers
        self.update = Update()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: Any, **_: Any
    ) -> None:
        """The gradients are there and clipped."""
        self.update.before(model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The weights have moved."""
        self.update.after()

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """One row per log of the trainer."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        row = {_named(k): v for k, v in logs.items() if isinstance(v, int | float)}
        if "grad_norm" in logs and args.max_grad_norm:
            clipped = logs["grad_norm"] > args.max_grad_norm
            row["train/gradient_clipped"] = float(clipped)
            row |= self.update.numbers()
        # those trained on, here too
        seen = row.pop("validation/num_tokens", state.num_input_tokens_seen)
        tokens = int(row.pop("train/num_tokens", seen))
        self.run.append_metrics({"step": state.global_step, "tokens": tokens, **row})
        self.watchers.step_logged(state.global_step, row)


def _named(key: str) -> str:
    """Our name of what a trainer logs; `eval_…` is TRL's own pass over
    `data.validation`.
    """
    bare = key.removeprefix("eval_")
    return f"{'train' if bare == key else 'validation'}/{NAMES.get(bare, bare)}"


class BudgetCallback(TrainerCallback):
    """Ends training once the recipe's `budget` is spent; what was spent before a
    resumption counts.
    """

    def __init__(self, run: Run, tokens: int | None, seconds: float | None) -> None:
        self.run = run
        self.tokens = math.inf if tokens is None else tokens
        self.seconds = math.inf if seconds is None else seconds
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.started = time.monotonic() - seconds_logged(self.run)
        # stopped behind the step that spent it
        rows = self.run.metrics() if state.global_step else []
        self._stop_if_spent(
            max((int(row.get("tokens", 0)) for row in rows), default=0), control
        )

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Look at what was spent."""
        if not logs or "train_runtime" in logs:
            return
        tokens = int(logs.get("num_tokens", state.num_input_tokens_seen))
        self._stop_if_spent(tokens, control)

    def _stop_if_spent(self, tokens: int, control: Any) -> None:
        """Every process must stop at the same step, so the first one's clock decides."""
        from accelerate.utils import broadcast_object_list

        spent = tokens >= self.tokens or time.monotonic() - self.started >= self.seconds
        if broadcast_object_list([spent])[0]:
            control.should_training_stop = True


class EvalCallback(TrainerCallback):
    """Runs evals every N optimizer steps on the model in training."""

    def __init__(
        self, every: Mapping[str, int], evaluate: Callable[[str, int], None]
    ) -> None:
        self.every = every
        self.evaluate = evaluate

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is left to the evals after training."""
        for name, every in self.every.items():
            if state.global_step % every == 0 and state.global_step < state.max_steps:
                self.evaluate(name, state.global_step)


class WholeRolloutsCallback(TrainerCallback):
    """Puts a checkpoint off to the end of a rollout batch: one within could only go on
    with other rollouts.

    Off-policy, TRL trains several optimizer steps on one batch, which no checkpoint
    holds.
    """

    def __init__(self) -> None:
        self.due = False
        self.whole = False  # at the end of the newest step

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, train_dataloader: Any, **_: Any
    ) -> None:
        """TRL counts a batch in microbatches, checkpoints count optimizer steps. The
        last step's is never put off.
        """
        self.due = self.due or control.should_save
        # microbatches; the epoch's last optimizer step may have fewer than others
        per_epoch = len(train_dataloader)
        epochs, steps = divmod(
            state.global_step, math.ceil(per_epoch / args.gradient_accumulation_steps)
        )
        done = epochs * per_epoch + steps * args.gradient_accumulation_steps
        self.whole = done % (args.steps_per_generation * args.num_iterations) == 0
        self.whole = self.whole or state.global_step >= state.max_steps
        control.should_save = self.due and self.whole
        self.due = self.due and not control.should_save


def of_method(
    config: Stepped, folder: Run, trainer: Seam, evals: EvalCallback
) -> list[TrainerCallback]:
    """What happens at the end of a step, in this order: it may end training, put a
    checkpoint off, evaluate, and stop.
    """
    callbacks: list[TrainerCallback] = []
    if config.budget is not None:
        budget = config.budget
        callbacks.append(BudgetCallback(folder, budget.tokens, budget.seconds))
    if not isinstance(config, Policy):
        return [*callbacks, evals, StopCallback(trainer, lambda: True)]
    rollouts = WholeRolloutsCallback()
    stop = StopCallback(trainer, lambda: rollouts.whole)
    return [*callbacks, rollouts, evals, stop]


class ProgressCallback(TrainerCallback):
    """Shows the steps, with loss, reward and entropy beside them."""

    def __init__(self, console: Console, title: str) -> None:
        self.progress = Progress(console, title)
        self.shown: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the seconds from here."""
        self.progress = Progress(self.progress.console, self.progress.title)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember the numbers to show."""
        for name in ("entropy", "loss", "reward"):
            if (value := (logs or {}).get(name)) is not None:
                self.shown[name] = value

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance."""
        if state.is_world_process_zero:
            numbers = "  ".join(f"{k} {v:.3f}" for k, v in sorted(self.shown.items()))
            self.progress("step", state.global_step, state.max_steps, numbers)

    def close(self) -> None:
        """Close the bar, also after an error."""
        self.progress.close()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.close()


class SettingsCallback(TrainerCallback):
    """Proves the settings once optimizer, schedule and data loader are made, and again
    after the first step; both go into the manifest.
    """

    def __init__(self, subject: Subject, proofs: Proofs) -> None:
        self.subject = subject
        self.proofs = proofs
        self.wanted = requested(subject.config, subject.engine)
        self.effective: dict[str, Any] = {}
        self._done = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step."""
        self._prove()
        self.proofs.require("start")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the first one."""
        if not self._done:
            self._done = True
            self._prove()
            self.proofs.require("start", begun=True)
            if isinstance(self.subject.config, Policy):
                self.proofs.prove("sync", lambda: prove_sync(self.subject))

    def _prove(self) -> None:
        self.proofs.prove("settings", self._compare)
        shown = self.wanted.keys() | self.subject.trainer.effective_settings().keys()
        effective = self.effective
        self.subject.run.update(
            requested=self.wanted,
            effective={k: effective[k] for k in sorted(shown) if k in effective},
            unproven=unproven(self.wanted, effective),
        )

    def _compare(self) -> Finding:
        self.effective = in_force(self.subject)
        return compare({**self.subject.settings, **self.wanted}, self.effective)
