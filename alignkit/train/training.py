"""Train one recipe: model, data, TRL's trainer, evals, the run folder."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data, models, plugins, provenance, run, types
from alignkit.data import encode
from alignkit.engines.base import local_engine
from alignkit.errors import InputError
from alignkit.machine import here
from alignkit.machine.gpus import cuda_available
from alignkit.recipe import as_recipe, diff_against_parent, to_yaml
from alignkit.recipe.schema import Policy, Sampled, Stage, Stepped
from alignkit.recipe.trl import setting
from alignkit.train import arguments
from alignkit.train.evals import TrainingEvals, given, given_prompt
from alignkit.train.rewards import Answers, RewardBoard

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.grading import Grader
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.train.objective import Objective

log = logging.getLogger(__name__)


def execute(
    recipe: Recipe,
    registry: Registry,
    console: Console,
    folder: run.Run,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train as the recipe says inside its run folder; `resume` goes on from its newest
    checkpoint.

    Returns:
        The first and the last summary of each eval, by its name.
    """
    job = Job(recipe, registry, console, folder)
    try:
        job.work(resume)
    finally:
        job.close()
    return run.eval_summaries(folder.folder)


def create_run(
    recipe: Recipe,
    registry: Registry,
    root: Path | None = None,
    folder: Path | None = None,
) -> run.Run:
    """Make the run folder with recipe, diff and manifest."""
    config = recipe.config
    made = run.Run.create(
        root or Path(config.output.root),
        config.name,
        folder,
        method=config.method,
        seed=config.seed,
        **provenance.of_run(recipe, registry).record(),
        versions=here.versions(),
        git=here.git_state(recipe.path.parent),
        hardware=here.hardware(),
        kits={kit.name: str(kit.root) for kit in registry.kits},
    )
    made.write("diff.yaml", to_yaml(as_recipe(diff_against_parent(recipe))))
    # the last file: a folder that has it can be resumed
    made.write("recipe.yaml", to_yaml(recipe.resolved))
    return made


def check_unchanged(recipe: Recipe, registry: Registry, begun: run.Run) -> list[str]:
    """Refuse to go on with a run whose data, plugins or versions have changed since.

    Returns:
        What cannot be told.

    Raises:
        InputError: what has changed, each part by its name.
    """
    now = provenance.of_run(recipe, registry)
    if changed := provenance.changes(begun.manifest, now):
        stage = (
            f", or at the first stage concerned: align run --resume {begun.folder}"
            " --from STAGE"
        )
        raise InputError(
            f"{begun.folder} was begun with other data, plugins or versions than are"
            f" here now ({'; '.join(changed)}), so going on would mix two experiments;"
            f" start anew: align run {begun.folder / 'recipe.yaml'}"
            + (stage if recipe.stages else "")
        )
    if not provenance.is_old(begun.manifest):
        return []
    return [
        f"{begun.folder} was begun by {provenance.OLD}; its data and versions agree"
    ]


def objective(config: Stage, registry: Registry) -> Objective | None:
    """The loss and advantage plugins of a recipe; None for TRL's own loss (`loss:
    {name: trl}`, or none named).
    """
    from alignkit.train.objective import Objective

    if config.loss is None or config.loss.name == "trl":
        return None
    loss = registry.get("loss", config.loss.name)
    found = Objective(
        loss=loss.value,
        options=plugins.typed_options(loss, config.loss.options),
        normalize=config.loss.normalize,
        constant=config.loss.constant,
    )
    if not isinstance(config, Policy) or config.advantage is None:
        return found
    advantage = registry.get("advantage", config.advantage.name)
    options = plugins.typed_options(advantage, config.advantage.options)
    return replace(found, advantage=advantage.value, advantage_options=options)


class Job:
    """One training run from start to end."""

    def __init__(
        self, recipe: Recipe, registry: Registry, console: Console, folder: run.Run
    ) -> None:
        self.recipe = recipe
        config = recipe.stage
        self.config = config
        self.registry = registry
        self.console = console
        self.run = folder
        self.info = types.RunInfo(self.config.name, folder.folder, recipe.resolved)
        self.callbacks = [
            registry.get("callback", name).value for name in self.config.callbacks
        ]
        self.prompt = data.load_prompt(given_prompt(self.config.data.prompt), registry)
        self.grader: Grader | None = None
        self.answers: dict[str, Answers] = {}
        self.progress: Any = None
        self.trainer: Any = None
        self.evals = TrainingEvals(
            recipe, registry, console, folder, self.info, self.callbacks
        )

    def work(self, resume: bool = False) -> None:
        """Load, evaluate, train, evaluate, save."""
        import datasets
        import transformers

        transformers.set_seed(self.config.seed)
        # our own progress is shown instead
        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        self._configure()
        self._load_model()
        self._make_trainer()
        for callback in self.callbacks:
            if callback.run_started is not None:
                callback.run_started(self.info)
        checkpoint = self._checkpoint() if resume else None
        if checkpoint is None:
            self.evals.run_all("before", 0)
        outcome = self.trainer.train(resume_from_checkpoint=checkpoint)
        step = self.trainer.state.global_step
        seconds = round(outcome.metrics["train_runtime"], 3)
        self.run.update(
            training={"steps": step, "seconds": seconds, "loss": outcome.training_loss}
        )
        self.evals.run_all("after", step)
        if self.trainer.accelerator.is_main_process:
            models.save(
                self.trainer.accelerator.unwrap_model(self.trainer.model),
                self.tokenizer,
                self.run.model,
            )

    def _checkpoint(self) -> str | None:
        """The newest checkpoint, with what was logged after it taken back; None starts
        from the beginning.
        """
        from transformers.trainer_utils import get_last_checkpoint

        found = (
            get_last_checkpoint(self.trainer.args.output_dir)
            if Path(self.trainer.args.output_dir).is_dir()
            else None
        )
        self.run.forget_after(int(found.rpartition("-")[2]) if found else -1)
        return found

    def close(self) -> None:
        """Stop what still runs: progress, grading workers; say how an offline tracker
        is uploaded.
        """
        from alignkit.train import tracking

        tracking.say_how_to_sync(self.console, self.config, self.run.folder)
        if self.progress is not None:
            self.progress.close()
        if self.grader is not None:
            self.grader.close()

    def _configure(self) -> None:
        """TRL's config; making it also joins the other training processes."""
        from alignkit.train import tracking

        config = self.config
        self.engine = (
            local_engine(config.generation.engine)
            if isinstance(config, Sampled)
            else ""
        )
        tracking.prepare(config, self.run.folder)
        self.args = arguments.arguments(
            config, self.run.folder, engine=self.engine, cuda=cuda_available()
        )

    def _load_model(self) -> None:
        model = self.config.model
        if model.build is not None:
            # TRL finds the reference model and vLLM its weights by path, so a built
            # model is saved first.
            start = self.run.folder / "start"
            with self.args.main_process_first():
                if not start.is_dir():
                    models.save(*models.build(model.build, self.config.seed), start)
            source = str(start)
        else:
            assert model.path is not None  # one of the two is stated
            source = model.path
        self.model, self.tokenizer = models.load(
            source,
            dtype=model.dtype,
            attention=model.attention,
            revision=model.revision,
            lora=model.lora,
            quantize=model.quantize,
        )
        self.run.update(
            model={"path": source, **models.describe(self.model, self.tokenizer)}
        )

    def _rows(self, spec: Any, part: str) -> Any:
        """Dataset rows as the method's trainer takes them; `part` is train or
        validation.
        """
        loaded = data.load_rows(given(spec), self.registry, seed=self.config.seed)
        self.run.update(
            data={**self.run.manifest.get("data", {}), part: data.fingerprint(loaded)}
        )
        method, train = self.config.method, self.config.train
        if method == "sft":
            dataset, kept = encode.supervised(
                loaded,
                self.prompt,
                self.tokenizer,
                max_length=setting(self.config, "max_length"),
                mask_prompt=train.get("completion_only_loss") is not False,
            )
        elif method == "dpo":
            limit = setting(self.config, "max_length")
            dataset, kept = encode.preferences(
                loaded, self.prompt, self.tokenizer, max_length=limit
            )
        else:
            context = self.model.config.get_text_config().max_position_embeddings
            assert isinstance(self.config, Sampled)
            room = encode.prompt_room(self.config.generation, context, self.engine)
            dataset, kept = encode.problems(
                loaded, self.prompt, self.tokenizer, max_prompt=room
            )
            rollouts = "step" if part == "train" else part
            self.answers[rollouts] = Answers(loaded, given(spec))
        self.run.update(rows={**self.run.manifest.get("rows", {}), part: kept.record()})
        return dataset

    def _make_trainer(self) -> None:
        from alignkit.proofs.settings import requested
        from alignkit.train import tracking
        from alignkit.train.callbacks import (
            EvalCallback,
            MetricsCallback,
            ProgressCallback,
            SettingsCallback,
            WholeRolloutsCallback,
        )

        config = self.config
        parts = {
            part: self._rows(spec, part) for part, spec in config.data.parts().items()
        }
        every = {
            name: e.every for name, e in config.evals.items() if e.every is not None
        }
        self.progress = ProgressCallback(self.console, config.name)
        settings = SettingsCallback(self.run, requested(config, self.engine))
        common: dict[str, Any] = {
            "model": self.model,
            "args": self.args,
            "train_dataset": parts["train"],
            "eval_dataset": parts.get("validation"),
            "processing_class": self.tokenizer,
            "callbacks": [
                settings,
                MetricsCallback(self.run, self.info, self.callbacks),
                *self._budget(),
                *([WholeRolloutsCallback()] if isinstance(config, Policy) else []),
                EvalCallback(every, self.evals.run),
                self.progress,
            ],
            "objective": objective(config, self.registry),
        }
        if isinstance(config, Policy):
            from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer

            kind = AlignGRPOTrainer if config.method == "grpo" else AlignRLOOTrainer
            board = self._reward_board(config)
            vllm = config.generation.vllm
            tolerance = vllm.sync_tolerance if vllm is not None else None
            self.trainer = kind(
                reward_funcs=board.functions,
                board=board,
                sync_tolerance=tolerance,
                **common,
            )
        elif config.method == "sft":
            from alignkit.train.sft import AlignSFTTrainer

            self.trainer = AlignSFTTrainer(**common)
        else:
            from alignkit.train.dpo import AlignDPOTrainer

            self.trainer = AlignDPOTrainer(**common)
        self.evals.trackers = tracking.guard(self.trainer, config, self.recipe.resolved)
        settings.trainer = self.evals.trainer = self.trainer
        self.evals.grader = self.grader
        from transformers import PrinterCallback

        self.trainer.remove_callback(PrinterCallback)  # prints a dict per step

    def _budget(self) -> list[Any]:
        from alignkit.train.callbacks import BudgetCallback

        budget = self.config.budget if isinstance(self.config, Stepped) else None
        return (
            []
            if budget is None
            else [BudgetCallback(self.run, budget.tokens, budget.seconds)]
        )

    def _reward_board(self, config: Policy) -> RewardBoard:
        from alignkit.grading import Grader
        from alignkit.train.rewards import bound_rewards

        self.grader = Grader()
        entries, bound = config.rewards, bound_rewards(config, self.registry)
        zero = {
            reward.name: entries[name].on_error == "zero"
            for name, reward in bound.items()
        }
        weights = [entry.weight for entry in entries.values()]
        return RewardBoard(
            list(bound.values()), weights, zero, self.grader, self.run, self.answers
        )
