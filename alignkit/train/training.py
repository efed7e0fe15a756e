"""Train one recipe: model, data, TRL's trainer, evals, the run folder."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignkit import data, models
from alignkit.engines.base import local_engine
from alignkit.grading import Grader
from alignkit.machine.gpus import cuda_available
from alignkit.models import text
from alignkit.models.shape import context
from alignkit.proofs.record import Proofs
from alignkit.recipe.schema import Policy, Sampled, Stepped
from alignkit.run import Run, eval_summaries, stopping
from alignkit.terminal import say, waiting
from alignkit.terminal.libraries import no_bars
from alignkit.train import tracking
from alignkit.train.arguments import arguments
from alignkit.train.callbacks import (
    EvalCallback,
    MetricsCallback,
    ProgressCallback,
    SettingsCallback,
    of_method,
)
from alignkit.train.checkpoints import GoOnCallback
from alignkit.train.evals import TrainingEvals, planned_evals
from alignkit.train.examples import Examples, examples
from alignkit.train.proving import (
    ROWS,
    Subject,
    prove_best,
    prove_end,
    prove_start,
)
from alignkit.train.proving.settings import as_made, first_encoded
from alignkit.train.resumed import mean_loss, newest_checkpoint, require_optimizer
from alignkit.train.rewards import Answers
from alignkit.train.trainer import make_trainer, objective, reward_board

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.data.datasets import Datasets
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.train.seam import Seam
from alignkit.train.watch import ChecksCallback
from alignkit.train.watchers import Watchers


def execute(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    console: Console,
    folder: Run,
    watchers: Watchers,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train as the recipe says inside its run folder; `resume` goes on from its newest
    checkpoint.

    Returns:
        The first and the last summary of each eval, by its name.
    """
    if resume:
        require_optimizer(recipe, folder)
    with prepared(recipe, registry, datasets, console, folder, watchers) as training:
        watchers.run_started()
        training.work(resume)
    return eval_summaries(folder.folder)


@contextlib.contextmanager
def prepared(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    console: Console,
    folder: Run,
    watchers: Watchers,
) -> Iterator[Training]:
    """A recipe's training, whose progress and grading workers are stopped at the end."""
    config = recipe.stage
    assert isinstance(config, Stepped)
    with contextlib.ExitStack() as closing:
        closing.callback(tracking.say_how_to_sync, console, config.track, folder.folder)
        progress = ProgressCallback(console, config.name)
        closing.callback(progress.close)
        # other methods grade in evals only, which make their own
        grader = None
        if isinstance(config, Policy):
            grader = closing.enter_context(Grader())
        with waiting(console, "loading model and data"):
            training = _prepare(
                recipe, registry, datasets, console, folder, watchers, progress, grader
            )
        yield training


@dataclass(frozen=True)
class Training:
    """One recipe's training, ready to begin."""

    run: Run
    trainer: Seam
    evals: TrainingEvals
    subject: Subject
    proofs: Proofs
    going_on: GoOnCallback
    console: Console

    def work(self, resume: bool = False) -> None:
        """Prove, evaluate, train, evaluate, save, prove."""
        trainer = self.trainer
        checkpoint = newest_checkpoint(self.run, self.console) if resume else None
        prove_start(self.subject, self.proofs)
        if checkpoint is None:
            if resume:
                self.run.forget_after(-1)
            self.evals.before()
        else:
            self.going_on.checkpoint = checkpoint
        with stopping.deferred(self.subject.config.launch.grace_seconds):
            outcome = trainer.train(
                resume_from_checkpoint=None if checkpoint is None else str(checkpoint)
            )
        step = trainer.state.global_step
        seconds = round(self.going_on.seconds + outcome.metrics["train_runtime"], 3)
        loss = mean_loss(self.run, outcome.training_loss)
        self.run.update(training={"steps": step, "seconds": seconds, "loss": loss})
        self.evals.after(step)
        if trainer.accelerator.is_main_process:
            model = trainer.accelerator.unwrap_model(trainer.model)
            models.save(model, trainer.processing_class, self.run.model)
        prove_end(self.subject, self.proofs)


def _prepare(
    recipe: Recipe,
    registry: Registry,
    datasets: Datasets,
    console: Console,
    folder: Run,
    watchers: Watchers,
    progress: ProgressCallback,
    grader: Grader | None,
) -> Training:
    """Load model and data, and make the trainer with all that watches it."""
    import transformers

    config = recipe.stage
    assert isinstance(config, Stepped)
    transformers.set_seed(config.seed)
    no_bars()
    engine = ""
    if isinstance(config, Sampled):
        engine = local_engine(config.generation.engine)
    tracking.prepare(config.track, config.method, folder.folder)
    # making TRL's config also joins the other training processes
    cuda = cuda_available()
    args = arguments(config, folder.folder, engine=engine, cuda=cuda)
    model, tokenizer = _model(config, folder, args)
    text.set_template_options(tokenizer, config.train.get("chat_template_kwargs"))
    length = context(model.config)
    prompt = data.load_prompt(config.data.template, registry)
    parts = {
        part: examples(
            config,
            datasets.rows(spec.stated, config.seed),
            prompt,
            tokenizer,
            context=length,
            engine=engine,
        )
        for part, spec in config.data.parts().items()
    }
    _note_rows(config, datasets, folder, parts)
    board = None
    if isinstance(config, Policy):
        assert grader is not None
        answers = _answers(config, datasets)
        board = reward_board(config, registry, grader, folder, answers)
    planned = planned_evals(config, registry, datasets) if folder.writes else {}
    first = datasets.rows(config.data.train.stated, config.seed)[:ROWS]
    datasets.release()
    trainer = make_trainer(
        config,
        board,
        model=model,
        args=args,
        train_dataset=parts["train"].dataset,
        eval_dataset=parts["validation"].dataset if "validation" in parts else None,
        processing_class=tokenizer,
        objective=objective(config, registry),
    )
    evals = TrainingEvals(
        config,
        planned,
        registry,
        trainer,
        folder,
        console,
        grader=grader,
        trackers=tracking.guard(trainer, config, recipe.resolved, folder.folder),
        watchers=watchers,
    )
    subject = Subject(
        config=config,
        registry=registry,
        run=folder,
        trainer=trainer,
        tokenizer=tokenizer,
        prompt=prompt,
        rows=first,
        engine=engine,
        settings=as_made(config, trainer),
        encoded=first_encoded(trainer),
    )
    proofs = Proofs(folder, config.method, config.waive)
    trainer.on_halved = functools.partial(_note_halved, folder, console)
    evals.on_saved = functools.partial(prove_best, subject, proofs)
    trainer.remove_callback(transformers.PrinterCallback)  # prints a dict per step
    going_on = GoOnCallback(folder, trainer)
    for callback in (
        SettingsCallback(subject, proofs),
        going_on,
        MetricsCallback(folder, watchers),
        *of_method(config, folder, trainer, EvalCallback(evals.every, evals.run)),
        ChecksCallback(folder, console),
        progress,
    ):
        trainer.add_callback(callback)
    return Training(folder, trainer, evals, subject, proofs, going_on, console)


def _note_rows(
    config: Stepped, datasets: Datasets, folder: Run, parts: Mapping[str, Examples]
) -> None:
    """Which rows there were, and what became of them, goes into the manifest."""
    hashes = {
        part: datasets.fingerprint(spec.stated, config.seed)
        for part, spec in config.data.parts().items()
    }
    rows = {part: examples.kept.record() for part, examples in parts.items()}
    folder.update(data=hashes, rows=rows)


def _note_halved(run: Run, console: Console, text: str) -> None:
    if run.writes:
        run.update(memory=[*run.manifest.get("memory", []), text])
        say(console, text)


def _answers(config: Policy, datasets: Datasets) -> dict[str, Answers]:
    """What the rewards need to know of the rows, by the kind of rollouts."""
    kinds = {"train": "step", "validation": "validation"}
    return {
        kinds[part]: Answers(datasets.rows(spec.stated, config.seed), spec.stated)
        for part, spec in config.data.parts().items()
    }


def _model(config: Stepped, folder: Run, args: Any) -> tuple[Any, Any]:
    """The model and its tokenizer; what they are goes into the manifest."""
    stated = config.model
    if stated.build is not None:
        # TRL finds the reference model, vLLM its weights, by path: it is saved first.
        start = folder.folder / "start"
        with args.main_process_first():
            if not start.is_dir():
                models.save(*models.build(stated.build, config.seed), start)
        source = str(start)
    else:
        assert stated.path is not None  # one of the two is stated
        source = stated.path
    model, tokenizer = models.load(
        source,
        dtype=stated.dtype,
        attention=stated.attention,
        revision=stated.revision,
        lora=stated.lora,
        quantize=stated.quantize,
    )
    folder.update(model={"path": source, **models.describe(model, tokenizer)})
    return model, tokenizer
