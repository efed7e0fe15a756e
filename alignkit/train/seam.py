"""What every trainer subclass shares: the bookkeeping of an optimizer step, and the
proof that the plugin ran.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import PluginError, WorkError
from alignkit.run import deadlines
from alignkit.train.checkpoints import WholeCheckpoints
from alignkit.train.memory import Halving
from alignkit.train.objective import Objective, Step, in_force
from alignkit.train.validation import Validation

if TYPE_CHECKING:
    from torch import Tensor


class Seam(WholeCheckpoints, Halving, Validation):
    """Mixed in before a TRL trainer; takes one more keyword, `objective`. None leaves
    TRL's own loss untouched.

    A subclass overrides TRL's loss method, calls `_apply`, and says how much a step
    covers (`_measure`).
    """

    method: str

    def __init__(
        self, *args: Any, objective: Objective | None = None, **kwargs: Any
    ) -> None:
        self.objective = objective
        self._calls = 0
        self._window = 0  # microbatches of the current optimizer step
        self._step_size: Step | None = None
        self._sums = {}
        self._weights, self._losses = {}, []
        # spent in a training step on generation and grading
        self._seconds_elsewhere = 0.0
        self._seconds = 0.0
        if objective is not None:
            # `reduce` divides by the whole optimizer step, so transformers must not
            # divide once more.
            self.loss_is_scaled_for_ga = True
        super().__init__(*args, **kwargs)
        if objective is not None:
            self.objective = objective.settled(self.method, self.args)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's; what is no other phase counts to the step."""
        with deadlines.phase("forward_backward"):
            return super().train(*args, **kwargs)  # type: ignore[misc]

    # -- one optimizer step ------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> Any:
        """Transformers calls this at the start of each optimizer step."""
        deadlines.again()
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._window = len(samples)
        self._step_size = None
        self._sums = {}
        self._opened(samples)
        return samples, items

    def _opened(self, samples: list[Any]) -> None:
        """An optimizer step starts; `samples` are its microbatches (GRPO, RLOO: rows to
        generate for).
        """

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One microbatch; after the last one of a step, what was computed is checked
        before the optimizer moves.
        """
        started, before = time.perf_counter(), self._calls
        loss = super().training_step(*args, **kwargs)
        if self.objective is not None and self._calls == before:
            import trl

            raise WorkError(
                f"TRL {trl.__version__} no longer calls the method in which loss"
                f" '{self.objective.loss.name}' is applied, so it would have been"
                " ignored; install the tested version (see constraints.txt)"
            )
        if self.accelerator.sync_gradients:
            self._close_step()
            self._seconds += time.perf_counter() - started - self._seconds_elsewhere
            self._metrics["train"]["seconds/forward_backward"].append(self._seconds)
            self._seconds = self._seconds_elsewhere = 0.0
        else:
            self._seconds += time.perf_counter() - started
        return loss

    def _close_step(self) -> None:
        values = self._totals()
        if self.objective is not None:
            self._require_sound(self.objective, values)
        for name, (total, count) in values.items():
            self._metrics["train"][name].append(total / count if count else math.nan)

    def _require_sound(
        self, objective: Objective, values: dict[str, list[float]]
    ) -> None:
        """Take what was counted of non-finite values out of `values`, and stop where
        there were any.
        """
        if "!gradient" not in values:
            raise PluginError(
                f"loss '{objective.loss.name}' does not depend on the"
                " log-probabilities it was given, so nothing would be learnt"
                f" ({objective.where})"
            )
        self._stop_if_not_finite(
            {
                name: int(values.pop(f"!{name}")[0])
                for name in ("logps", "loss", "gradient")
            }
        )

    def _stop_if_not_finite(self, bad: Mapping[str, int]) -> None:
        assert self.objective is not None
        if bad["logps"]:
            raise WorkError(
                f"{bad['logps']} log-probabilities of the model are not finite at step"
                f" {self.state.global_step + 1}: training has diverged (learning rate,"
                " dtype?). The optimizer was not moved; checkpoints are whole"
            )
        for what in ("loss", "gradient"):
            if bad[what]:
                raise WorkError(
                    f"loss '{self.objective.loss.name}' gave {bad[what]} {what} values"
                    f" that are not finite at step {self.state.global_step + 1}, though"
                    " every log-probability was; expected finite numbers on response"
                    f" tokens ({self.objective.where}). The optimizer was not moved;"
                    " checkpoints are whole"
                )

    def _loss_by_tokens(self) -> bool:
        objective = self.objective
        return objective is not None and objective.normalize == "token"

    def _measure(self, rows: int, mask: Tensor) -> Step:
        """The size of the current optimizer step (training) or of this batch alone
        (evaluation).
        """
        raise NotImplementedError

    def _total(self, tokens: Tensor, rows: int, device: torch.device) -> Step:
        """Add up over the processes."""
        local = torch.stack(
            [tokens.float().to(device), torch.tensor(float(rows), device=device)]
        )
        tokens, sequences = self.accelerator.reduce(local, reduction="sum").unbind()
        return Step(tokens, sequences, self.accelerator.num_processes)

    def _apply(
        self,
        batch: Any,
        logps: tuple[Tensor, ...],
        mask: Tensor,
        **weights: Tensor | None,
    ) -> Tensor:
        """Call the plugin on a batch and reduce; `logps` are its tensors with gradient,
        all of the mask's rows.

        `weights`: `ratio` multiplies the plugin's values, `penalty` is added after it
            (both broadcast).
        """
        assert self.objective is not None
        self._calls += 1
        training = self.model.training
        values, metrics = self.objective(batch)
        shown = values
        if (ratio := weights.get("ratio")) is not None:
            values = values * (ratio if values.dim() == 2 else ratio.squeeze(1))
        if (penalty := weights.get("penalty")) is not None:
            values = values + penalty
        if not training:
            step = self._measure(len(mask), mask)
        elif self._step_size is None:
            step = self._step_size = self._measure(len(mask), mask)
        else:
            step = self._step_size
        if training:
            self._watch(logps, shown, mask)
        for name, value in metrics.items():
            self._note(name, value, mask)
        if not training:
            self._flush_eval()
        return self.objective.reduce(values, mask, step)

    def _watch(self, logps: tuple[Tensor, ...], values: Tensor, mask: Tensor) -> None:
        """Count what is not finite, without waiting for the device."""

        def count(name: str, tensor: Tensor) -> None:
            bad = ~tensor.detach().isfinite()
            total = (bad & mask if tensor.dim() == 2 else bad).sum()
            self._add(f"!{name}", total, torch.ones_like(total))

        count("loss", values)
        for tensor in logps:
            count("logps", tensor)
            tensor.register_hook(lambda gradient: count("gradient", gradient))

    def _microbatches(self) -> int:
        """Of one epoch, on this process."""
        return len(self.callback_handler.train_dataloader)

    # -- effective settings ------------------------------------------------------------

    def effective_settings(self) -> dict[str, Any]:
        """Settings by their dotted recipe key, as the trainer works with them."""
        return self._observe()

    def _observe(self) -> dict[str, Any]:
        accumulation = self.args.gradient_accumulation_steps
        # the last step of an epoch takes what microbatches are left
        if self._window and self._window != min(accumulation, self._microbatches()):
            accumulation = self._window
        seen: dict[str, Any] = {
            "method": self.method,
            "train.gradient_accumulation_steps": accumulation,
            "train.per_device_train_batch_size": self._train_batch_size,
            "launch.processes": self.accelerator.num_processes,
        }
        if self.objective is None:
            seen["loss.name"] = "trl"
        else:
            seen |= {
                "loss.name": self.objective.loss.name,
                "loss.normalize": self.objective.normalize,
            }
            seen |= (
                {"loss.constant": self.objective.constant}
                if self.objective.normalize == "constant"
                else {}
            )
            options = in_force(self.objective.loss.function, self.objective.options)
            seen |= {f"loss.{name}": value for name, value in options.items()}
        return seen
