"""Checkpoints of a trainer: written aside, complete with what transformers forgets, and
gone on from without anything lost before.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import safe_globals

from alignkit.errors import InputError, MissingError
from alignkit.run import checkpoints, deadlines, write_json, writing
from alignkit.run.files import read_json, size
from alignkit.train.resumed import seconds_logged, tokens_spent

if TYPE_CHECKING:
    from alignkit.run import Run


# What torch and safetensors say of a file that is damaged or none of theirs.
_UNREADABLE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
)


def _on_cpu(storage: Any, location: str) -> Any:
    """Each of several processes without a GPU loads to its device, which accelerate
    calls `cpu:0`, and torch knows `cpu` alone.
    """
    return storage if location.startswith("cpu:") else None


torch.serialization.register_package(100, lambda storage: None, _on_cpu)


class WholeCheckpoints:
    """Mixed in before a TRL trainer. A checkpoint lies under its name when it is whole;
    until then nothing older is removed.
    """

    # Of the trainer that a subclass brings in.
    accelerator: Any
    args: Any
    control: Any
    state: Any
    _globalstep_last_logged: int
    _metrics: Any
    _total_train_tokens: int
    _tr_loss: Any
    _aside = False

    def _get_output_dir(self, trial: Any) -> str:
        folder: str = super()._get_output_dir(trial)  # type: ignore[misc]
        return str(Path(folder) / checkpoints.ASIDE) if self._aside else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with deadlines.phase("save"):
            self._save_aside(model, trial)

    def _save_aside(self, model: Any, trial: Any) -> None:
        home, step = Path(self.args.output_dir), self.state.global_step
        made = home / checkpoints.ASIDE / f"checkpoint-{step}"
        if self.accelerator.is_main_process:
            shutil.rmtree(made.parent, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._aside = True
        try:
            with writing(made, self._need(home)):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
                write_json(made / self._between, self._since_logged())
        except MissingError:  # room for the run's last words
            shutil.rmtree(made.parent, ignore_errors=True)
            raise
        finally:
            self._aside = False
        self.accelerator.wait_for_everyone()
        best = self.state.best_global_step
        # transformers has looked for it where it wrote
        if best == step or (home / f"checkpoint-{best}").is_dir():
            self.state.best_model_checkpoint = str(home / f"checkpoint-{best}")
        if self.accelerator.is_main_process:
            self.state.save_to_json(str(made / checkpoints.STATE))
            checkpoints.publish(made)
            checkpoints.prune(home, self.args.save_total_limit, best)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        with _loading(checkpoint):
            super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _loading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # stopped behind the last step: transformers would train one more
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _need(self, home: Path) -> str:
        """What a checkpoint takes, as far as an earlier one tells."""
        before, _ = checkpoints.newest(home)
        if before is None:
            return "train.save_total_limit keeps fewer checkpoints"
        files = (path for path in before.rglob("*") if path.is_file())
        taken = size(sum(path.stat().st_size for path in files))
        return (
            f"a checkpoint needs {taken}, train.save_total_limit keeps fewer of them,"
            f" and {before.name} is whole: align run --resume {home.parent}"
        )

    @property
    def _between(self) -> str:
        return f"between_logs_{self.accelerator.process_index}.json"

    def _since_logged(self) -> dict[str, Any]:
        """What the next row of metrics.jsonl also tells of, when steps between two logs
        lie before the checkpoint.
        """
        values = self._metrics["train"].items()
        numbers = {name: [_number(value) for value in of] for name, of in values}
        total = vars(self).get("_total_train_tokens")  # SFT and DPO count them
        return {
            "loss": self._tr_loss.item(),
            "logged": self._globalstep_last_logged,
            "metrics": numbers,
            "tokens": total,
            "rows": self._rows_logged(),
        }

    def _rows_logged(self) -> int:
        """Evals behind the last step log further rows of it."""
        file = Path(self.args.output_dir).with_name("metrics.jsonl")
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    def rows_before(self, checkpoint: Path) -> int | None:
        """Rows of metrics.jsonl when a checkpoint was written; None of 0.1."""
        file = checkpoint / "between_logs_0.json"
        if not file.is_file():
            return None
        return int(read_json(file)["rows"])

    def go_on_logging(self, checkpoint: Path, run: Run) -> None:
        """Take up what was not logged when a checkpoint was written."""
        file = checkpoint / self._between
        if "_total_train_tokens" in vars(self):
            self._total_train_tokens = tokens_spent(run)
        if not file.is_file():  # of 0.1
            return
        saved = read_json(file)
        self._tr_loss = torch.full_like(self._tr_loss, saved["loss"])
        self._globalstep_last_logged = saved["logged"]
        for name, values in saved["metrics"].items():
            self._metrics["train"][name] = values
        if saved["tokens"] is not None:
            self._total_train_tokens = saved["tokens"]


def _require_generators(checkpoint: Path) -> None:
    """Transformers reads the states of the random generators later than all else."""
    with _loading(str(checkpoint)), safe_globals():
        for file in checkpoint.glob("rng_state*.pth"):
            torch.load(file, weights_only=True)


@contextlib.contextmanager
def _loading(checkpoint: str | None) -> Iterator[None]:
    """Whole by its names and sizes, a checkpoint may still hold what nothing can read.

    Raises:
        InputError: it does. Nothing of the run is changed by then.
    """
    try:
        yield
    except _UNREADABLE as error:
        why = f"{type(error).__name__}: {error}".split("\n")[0]
        raise InputError(
            f"{checkpoint} cannot be loaded ({why[:200]}); remove it to go on from the"
            " one before"
        ) from error


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


class GoOnCallback(TrainerCallback):
    """Cuts what a run logged after its checkpoint, once the checkpoint is loaded and
    every setting proven: what cannot go on has lost nothing.
    """

    def __init__(self, run: Run, trainer: WholeCheckpoints) -> None:
        self.run = run
        self.trainer = trainer
        self.checkpoint: Path | None = None
        self.seconds = 0.0  # of training, before it was resumed

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Optimizer, schedule and weights are those of the checkpoint."""
        if self.checkpoint is None:
            return
        _require_generators(self.checkpoint)
        rows = self.trainer.rows_before(self.checkpoint)
        self.run.forget_after(state.global_step, rows)
        self.seconds = seconds_logged(self.run)
        self.trainer.go_on_logging(self.checkpoint, self.run)
        # as this folder is called now
        best = self.checkpoint.with_name(f"checkpoint-{state.best_global_step}")
        state.best_model_checkpoint = str(best) if best.is_dir() else None
