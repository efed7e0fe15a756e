"""Evals of a run: before, during and after training, on the model in training as it
stands.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import models
from alignkit.endpoint.judges import JudgeClient, resolve
from alignkit.engines.prompts import PromptCoder
from alignkit.errors import InputError, WorkError
from alignkit.evaluate import (
    EvalRequest,
    Planned,
    evaluate,
    plan_eval,
)
from alignkit.evaluate.store import THIS_RUN
from alignkit.evaluate.trained import of_entry
from alignkit.models.shape import context
from alignkit.recipe.schema import Policy, Stage, Stepped
from alignkit.run import deadlines
from alignkit.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.data.datasets import Datasets
    from alignkit.engines.base import Engine
    from alignkit.grading import Grader
    from alignkit.plugins import Registry
    from alignkit.run import Run
    from alignkit.train.seam import Seam
    from alignkit.train.tracking import Tracker
    from alignkit.train.watchers import Watchers

BATCH = 128  # completions generated at once
LONGEST = 16  # prompts of an eval that are measured before the training


def planned_evals(
    config: Stage, registry: Registry, datasets: Datasets
) -> dict[str, Planned]:
    """Every eval of a recipe, ready to run."""
    return {
        name: plan_eval(request(config, name, registry), registry, datasets=datasets)
        for name in config.evals
    }


class TrainingEvals:
    """The evals of a recipe, on the model that a trainer holds. No copy of the model is
    made and no checkpoint is written in between.

    `planned`: each eval, ready to run; only the process that writes needs them.
    `grader`: the pool that scores; None makes one for each eval.
    """

    def __init__(
        self,
        config: Stepped,
        planned: Mapping[str, Planned],
        registry: Registry,
        trainer: Seam,
        run: Run,
        console: Console,
        *,
        grader: Grader | None,
        trackers: Sequence[Tracker],
        watchers: Watchers,
    ) -> None:
        self.config = config
        self.planned = planned
        self.registry = registry
        self.trainer = trainer
        self.run_folder = run
        self.console = console
        self.grader = grader
        self.trackers = trackers
        self.watchers = watchers
        self._check_lengths()
        # told of the folder of each best model
        self.on_saved: Callable[[Path], None] = lambda folder: None

    def _check_lengths(self) -> None:
        """Refuse prompts that are too long before the training, not after it."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        coder = PromptCoder(
            self.trainer.processing_class, "the model", context(model.config)
        )
        for name, planned in self.planned.items():
            prompts = [sample.prompt for sample in planned.samples]
            longest = sorted(range(len(prompts)), key=lambda i: -len(str(prompts[i])))
            checked = [i for i in longest[:LONGEST] if prompts[i]]
            encoded = coder.encode([prompts[i] for i in checked])
            try:
                coder.check_context(zip(checked, encoded, strict=True), 1)
            except InputError as error:
                raise InputError(f"evals.{name}: {error}") from error

    @property
    def every(self) -> dict[str, int]:
        """The optimizer steps between two runs, of the evals that run in training."""
        entries = self.config.evals.items()
        return {name: e.every for name, e in entries if e.every is not None}

    def before(self) -> None:
        """Those that the recipe wants on the untrained model."""
        self._run_all([name for name, e in self.config.evals.items() if e.before], 0)

    def after(self, step: int) -> None:
        """Those that the recipe wants on the trained model."""
        self._run_all([name for name, e in self.config.evals.items() if e.after], step)

    def _run_all(self, names: Iterable[str], step: int) -> None:
        for name in names:
            self.run(name, step)

    def run(self, name: str, step: int) -> None:
        """One eval. With several processes the first one evaluates and the others wait."""
        with deadlines.phase("eval", f"eval {name}"), self._engine() as engine:
            if self.run_folder.writes:
                self._run(name, step, engine)
            self.trainer.accelerator.wait_for_everyone()

    def _run(self, name: str, step: int, engine: Engine) -> None:
        folder = self.run_folder.folder
        entry = self.config.evals[name]
        judge = None
        if entry.judge is not None:
            judge = JudgeClient(
                resolve(self.registry, entry.judge),
                folder / "evals" / "judgements.jsonl",
                max_new_tokens=entry.judge_tokens,
            )
        summary = evaluate(
            self.planned[name],
            engine,
            folder / "evals",
            step=step,
            judge=judge,
            grader=self.grader,
            model=THIS_RUN,
        )
        numbers = {
            f"eval/{name}/{key}": value for key, value in _metrics(summary).items()
        }
        tokens = int(self.trainer.state.num_input_tokens_seen)
        self.run_folder.append_metrics({"step": step, "tokens": tokens, **numbers})
        of_trainer = self.trainer.args, self.trainer.state, self.trainer.control
        for tracker in self.trackers:
            tracker.evaluated(*of_trainer, numbers, model=self.trainer.model)
        self._keep_best(
            name, step, numbers, {summary["metric"], *summary.get("metrics", {})}
        )
        say(self.console, f"{self.config.name}: step {step}  {_line(summary)}")
        self.watchers.eval_finished(name, summary)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """What generates the rollouts, where one process alone can drive it; else the
        model itself.
        """
        args = self.trainer.args
        if (
            isinstance(self.config, Policy)
            and args.use_vllm
            and args.vllm_tensor_parallel_size == 1
        ):
            from alignkit.train.synced import trainer_engine

            with trainer_engine(self.trainer, "policy") as engine:
                yield engine
            return
        from alignkit.engines.transformers import TransformersEngine

        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        yield TransformersEngine(
            model, self.trainer.processing_class, name="policy", batch_size=BATCH
        )

    def _keep_best(
        self,
        name: str,
        step: int,
        numbers: Mapping[str, float],
        known_metrics: Collection[str],
    ) -> None:
        """Keep the model of the best value so far of the recipe's `best.metric` in
        best/.

        Raises:
            WorkError: the eval that it names has no such metric.
        """
        best = self.config.best
        if best is None or not best.metric.startswith(f"eval/{name}/"):
            return
        if best.metric.removeprefix(f"eval/{name}/") not in known_metrics:
            names = ", ".join(
                f"eval/{name}/{metric}" for metric in sorted(known_metrics)
            )
            raise WorkError(
                f"best.metric is {best.metric!r}, so no model would ever be kept; this"
                f" eval gives: {names}"
            )
        if best.metric not in numbers:  # nothing could be scored
            return
        value, known = numbers[best.metric], self.run_folder.manifest.get("best")
        if known is None or (
            value > known["value"] if best.mode == "max" else value < known["value"]
        ):
            folder = self.run_folder.folder / "best"
            made = self.run_folder.folder / "best.new"
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            models.save(model, self.trainer.processing_class, made)
            if folder.is_dir():  # kept until the better one is whole
                shutil.rmtree(folder)
            made.rename(folder)
            self.on_saved(folder)
            self.run_folder.update(
                best={
                    "metric": best.metric,
                    "mode": best.mode,
                    "step": step,
                    "value": value,
                }
            )


def request(config: Stage, name: str, registry: Registry) -> EvalRequest:
    """What a recipe says of one of its evals."""
    return of_entry(name, config.evals[name], config.seed, registry)


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary that are logged under `eval/<name>/`."""
    found = {summary["metric"]: summary["value"]}
    found |= {
        k: v
        for k, v in summary.get("metrics", {}).items()
        if isinstance(v, int | float)
    }
    return {k: float(v) for k, v in found.items() if v is not None}


def _line(summary: Mapping[str, Any]) -> str:
    if summary["value"] is None:
        return f"{summary['eval']}: nothing could be scored of {summary['n']}"
    low, high = summary["low"], summary["high"]
    value = f"{summary['value']:.3f} (95 % {low:.3f} to {high:.3f}, n {summary['n']})"
    return f"{summary['eval']} {summary['metric']} {value}"
