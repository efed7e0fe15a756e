"""Training that runs out of the device's memory: smaller microbatches, the same step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch

from alignkit.errors import WorkError

log = logging.getLogger(__name__)
LESS = (
    "use a smaller train.per_device_train_batch_size with more"
    " train.gradient_accumulation_steps, shorter rows (train.max_length,"
    " generation.max_new_tokens), train.gradient_checkpointing or model.lora"
)


class Halving:
    """Mixed in before a TRL trainer. A microbatch that does not fit is computed in
    halves, and so are all later ones, where the loss is a sum over the rows of the whole
    optimizer step: then it does not depend on the cut.
    """

    # Of the trainer that a subclass brings in.
    _metrics: Any
    _sums: dict[str, Any]
    method: str
    objective: Any
    accelerator: Any
    model: Any
    state: Any
    _step: int
    _total_train_tokens: int

    # told of the new size of microbatches
    on_halved: Callable[[str], None] = log.warning
    _parts = 1
    _newest: Any = None  # the microbatch in hand, prepared
    _given: Any = None  # what is computed in the place of what the loader gives

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """An optimizer step starts: what it adds to is kept."""
        self._before: list[Any] = []  # its microbatches so far, prepared
        values = self._metrics["train"].items()
        self._logged = {name: list(numbers) for name, numbers in values}
        self._tokens = vars(self).get("_total_train_tokens")
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def _prepare_inputs(self, inputs: Any) -> Any:
        if self._given is not None:
            return self._given
        metrics = self._metrics["train"]
        before = {name: (values, len(values)) for name, values in metrics.items()}
        prepared = super()._prepare_inputs(inputs)  # type: ignore[misc]
        if self.model.training:
            self._newest = prepared
            # rollouts are generated once, and so are their numbers
            for name, values in metrics.items():
                known, count = before.get(name, (values, 0))
                kept = self._logged.setdefault(name, []) if known is values else []
                self._logged[name] = [*kept, *values[count if known is values else 0 :]]
        return prepared

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> Any:
        """One microbatch, in as many parts as fit."""
        self._newest = None
        step = vars(self).get("_step")  # of GRPO and RLOO: microbatches so far

        def compute(batch: Any) -> Any:
            losses = []
            for part in [None] if batch is None else _split(batch, self._parts):
                if step is not None:
                    self._step = step
                self._given = part
                losses.append(super_step(model, inputs, num_items_in_batch))
            return sum(losses[1:], losses[0])

        super_step = super().training_step  # type: ignore[misc]
        again: list[Any] = []
        while True:
            try:
                if self._parts > 1 and self._newest is None:
                    model.train()
                    self._prepare_inputs(inputs)
                for batch in again:
                    compute(batch)
                loss = compute(self._newest)
                break
            except torch.OutOfMemoryError as error:
                said = str(error).split(". ")[0]
            finally:
                self._given = None
            # behind the except: its traceback holds what did not fit
            self._halve(model, said, num_items_in_batch)
            again = self._before
        self._before.append(self._newest)
        return loss

    def _halve(self, model: Any, said: str, items: Any) -> None:
        """Make parts half as large, and begin the optimizer step anew.

        Raises:
            WorkError: what to change, where the loss would depend on the cut.
        """
        where = f"out of memory at step {self.state.global_step + 1} ({said})"
        if self._newest is None:
            raise WorkError(f"{where}, before the loss was computed; {LESS}")
        additive = self.objective is not None or (
            self.method == "sft" and items is not None
        )
        if self.method == "dpo" or not additive:
            raise WorkError(
                f"{where}; the loss depends on how the batch is cut: {LESS}"
            )
        if self.accelerator.num_processes > 1:
            raise WorkError(
                f"{where}; in several processes it must be cut alike: {LESS}"
            )
        rows = _rows(self._newest)
        if rows < 2 * self._parts:
            raise WorkError(f"{where}, with {rows // self._parts} rows at once; {LESS}")
        self._parts *= 2
        model.zero_grad()
        self._sums = {}
        self._metrics["train"].clear()
        self._metrics["train"].update({k: list(v) for k, v in self._logged.items()})
        if self._tokens is not None:
            self._total_train_tokens = self._tokens
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.on_halved(
            f"{where}: from here on {-(-rows // self._parts)} rows are computed at once"
            f" instead of {rows}, {self._parts} times as often; the loss is the same"
        )


def _rows(batch: Any) -> int:
    """Those that can be told apart; one in packed rows."""
    for name in ("labels", "completion_ids"):
        if name in batch:
            return len(batch[name])
    return 1


def _split(batch: Any, parts: int) -> Iterator[Any]:
    """The batch in `parts` of its rows; what is no row goes with each."""
    rows = _rows(batch)
    size = -(-rows // parts)
    for begin in range(0, rows, size):
        yield {
            name: value[begin : begin + size] if _of_rows(value, rows) else value
            for name, value in batch.items()
        }


def _of_rows(value: Any, rows: int) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 and len(value) == rows
    return isinstance(value, list | tuple) and len(value) == rows
