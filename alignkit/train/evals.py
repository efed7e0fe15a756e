"""Evals of a run: before, during and after training, on the model in training as it
stands.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alignkit import models, types
from alignkit.endpoint.judges import JudgeClient, resolve
from alignkit.engines.transformers import TransformersEngine
from alignkit.errors import WorkError
from alignkit.evaluate import EvalRequest, evaluate, plan_eval
from alignkit.recipe.schema import Stage, Stepped

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.engines.base import Engine
    from alignkit.grading import Grader
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.run import Run
    from alignkit.train.tracking import Tracker

BATCH = 128  # completions generated at once


class TrainingEvals:
    """The evals of a recipe. No copy of the model is made and no checkpoint is written
    in between.
    """

    def __init__(
        self,
        recipe: Recipe,
        registry: Registry,
        console: Console,
        run: Run,
        info: types.RunInfo,
        callbacks: Sequence[types.Callback],
    ) -> None:
        self.config = recipe.stage
        self.registry = registry
        self.console = console
        self.run_folder = run
        self.info = info
        self.callbacks = callbacks
        self.trainer: Any = None  # made later
        self.grader: Grader | None = None
        self.trackers: Sequence[Tracker] = ()

    def run_all(self, when: str, step: int) -> None:
        """Those that the recipe wants `before` or `after` training."""
        for name, entry in self.config.evals.items():
            if getattr(entry, when):
                self.run(name, step)

    def run(self, name: str, step: int) -> None:
        """One eval. With several processes the first one evaluates and the others wait."""
        with self._engine() as engine:
            if self.run_folder.writes:
                self._run(name, step, engine)
            self.trainer.accelerator.wait_for_everyone()

    def _run(self, name: str, step: int, engine: Engine) -> None:
        folder = self.run_folder.folder
        entry = self.config.evals[name]
        planned = plan_eval(request(self.config, name, self.registry), self.registry)
        judge = None
        if entry.judge is not None:
            judge = JudgeClient(
                resolve(self.registry, entry.judge),
                folder / "evals" / "judgements.jsonl",
            )
        summary = evaluate(
            planned,
            engine,
            folder / "evals",
            step=step,
            judge=judge,
            grader=self.grader,
            model=str(folder),
        )
        numbers = {
            f"eval/{name}/{key}": value for key, value in _metrics(summary).items()
        }
        tokens = int(self.trainer.state.num_input_tokens_seen)
        self.run_folder.append_metrics({"step": step, "tokens": tokens, **numbers})
        for tracker in self.trackers:
            state = self.trainer.state
            tracker.evaluated(
                self.trainer.args,
                state,
                self.trainer.control,
                numbers,
                model=self.trainer.model,
            )
        self._keep_best(
            name, step, numbers, {summary["metric"], *summary.get("metrics", {})}
        )
        self.console.print(
            f"{self.config.name}: step {step}  {_line(summary)}", highlight=False
        )
        for callback in self.callbacks:
            if callback.eval_finished is not None:
                callback.eval_finished(self.info, name, summary)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        """What generates the rollouts, where one process alone can drive it; else the
        model itself.
        """
        args = self.trainer.args
        if (
            self.config.method in ("grpo", "rloo")
            and args.use_vllm
            and args.vllm_tensor_parallel_size == 1
        ):
            from alignkit.train.vllm_sync import trainer_engine

            with trainer_engine(self.trainer, "policy") as engine:
                yield engine
            return
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
        best = self.config.best if isinstance(self.config, Stepped) else None
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
            folder, made = (
                self.run_folder.folder / "best",
                self.run_folder.folder / "best.new",
            )
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            models.save(model, self.trainer.processing_class, made)
            if folder.is_dir():  # kept until the better one is whole
                shutil.rmtree(folder)
            made.rename(folder)
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
    entry = config.evals[name]
    return EvalRequest.of(
        registry.get("eval", name),
        options=entry.options,
        data=given(entry.data) | ({"split": entry.split} if entry.split else {}),
        prompt=given_prompt(entry.prompt),
        sampling=given(entry.sampling),
        limit=entry.limit,
        samples=entry.samples,
        seed=config.seed,
    )


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


def given(section: Any) -> dict[str, Any]:
    """What a recipe states of a section, without what is left out."""
    return (
        {}
        if section is None
        else dict(section.model_dump(exclude_none=True, exclude_unset=True))
    )


def given_prompt(prompt: Any) -> Any:
    """A recipe's prompt as `data.load_prompt` takes it."""
    if prompt is None:
        return None
    return (
        prompt.name if prompt.name is not None else prompt.model_dump(exclude_none=True)
    )
