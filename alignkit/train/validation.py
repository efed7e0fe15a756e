"""Passes over `data.validation` whose numbers do not depend on how it was cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from alignkit.run import deadlines
from alignkit.train.meters import Meters


class Validation(Meters):
    """Mixed in before a TRL trainer, whose own numbers of a pass are means of batches
    without a weight, the last one as heavy as the others.

    A subclass says how many tokens and rows a prepared batch has (`_sizes`).
    """

    _weights: dict[str, list[float]]  # beside the values in `_metrics["eval"]`
    _losses: list[tuple[float, float]]  # of the batches of a pass, and their weights
    _prepared: Any  # the batch that is evaluated

    def _sizes(self, inputs: Any) -> tuple[float, float]:
        """Trained tokens and rows of a batch."""
        raise NotImplementedError

    def _loss_by_tokens(self) -> bool:
        """Whether the loss of a batch is a mean over its tokens; else over its rows."""
        raise NotImplementedError

    def _tokens_count(self) -> bool:
        """Whether what the loss logs are means over tokens; else over rows."""
        return True

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, with the loss over all rows or tokens."""
        self._weights, self._losses = {}, []
        with deadlines.phase("eval", "validation"):
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        names = [name for name in output.metrics if name.endswith("_loss")]
        if self._losses and names:
            output.metrics[names[0]] = self._over_processes(self._losses)
        return output

    def _prepare_inputs(self, inputs: Any) -> Any:
        prepared = super()._prepare_inputs(inputs)  # type: ignore[misc]
        if not self.model.training:
            self._prepared = prepared
            if isinstance(prepared, dict):
                _, rows = self._sizes(prepared)
                self._weigh(rows)
        return prepared

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """One batch, and its weight."""
        outputs = super().prediction_step(*args, **kwargs)  # type: ignore[misc]
        tokens, rows = self._sizes(self._prepared)
        self._weigh(tokens if self._tokens_count() else rows)
        weight = tokens if self._loss_by_tokens() else rows
        self._losses.append((float(outputs[0]), weight))
        return outputs

    def _weigh(self, weight: float) -> None:
        """Give what was logged since the last time this weight."""
        for name, values in self._metrics["eval"].items():
            weights = self._weights.setdefault(name, [])
            weights += [weight] * (len(values) - len(weights))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, after the means of a pass are made."""
        if not self.model.training:
            for name, values in self._metrics["eval"].items():
                weights = self._weights.get(name, [])
                if len(weights) == len(values) and name != "num_tokens":
                    pairs = list(zip(values, weights, strict=True))
                    self._metrics["eval"][name] = [_whole(name, pairs)]
            self._weights = {}
        super().log(logs, start_time)  # type: ignore[misc]

    def _over_processes(self, pairs: Sequence[tuple[float, float]]) -> float:
        total = sum(value * weight for value, weight in pairs)
        sums = torch.tensor([total, sum(weight for _, weight in pairs)])
        sums = self.accelerator.reduce(
            sums.to(self.accelerator.device), reduction="sum"
        )
        return float(sums[0] / sums[1].clamp(min=1))


def _whole(name: str, pairs: Sequence[tuple[float, float]]) -> float:
    """The number of a pass from those of its batches: the extreme of extremes, else the
    weighted mean.
    """
    known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    last = name.rpartition("/")[2]
    if not known:
        return math.nan
    if last.startswith("min") or last.endswith("_min"):
        return min(value for value, _ in known)
    if last.startswith("max") or last.endswith("_max"):
        return max(value for value, _ in known)
    total = sum(weight for _, weight in known)
    if not total:
        return math.nan
    return sum(value * weight for value, weight in known) / total
