"""Numbers of an optimizer step: added up over its microbatches and processes, a mean at
its end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.train.objective import Objective


class Meters:
    """Mixed in before a TRL trainer, whose `_metrics` get the means."""

    objective: Objective | None
    # name -> (2,) sum and count over the optimizer step
    _sums: dict[str, Tensor]
    _weights: dict[str, list[float]]
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """All that the TRL trainer of a subclass brings in."""

    def _note(self, name: str, value: Any, mask: Tensor) -> None:
        """Add a metric: (B, T) averages over the response tokens of the step, (B,) over
        its rows, a number as it is.
        """
        value = torch.as_tensor(value, device=mask.device).detach().float()
        if value.shape == mask.shape:
            self._add(name, value.masked_fill(~mask, 0).sum(), mask.sum())
        elif value.shape == mask.shape[:1] or value.dim() == 0:
            self._add(
                name,
                value.sum(),
                torch.tensor(float(value.numel()), device=mask.device),
            )
        else:
            assert self.objective is not None
            raise PluginError(
                f"loss '{self.objective.loss.name}' returned the metric '{name}' of"
                f" shape {tuple(value.shape)}; expected a number,"
                f" {tuple(mask.shape[:1])} or {tuple(mask.shape)}"
                f" ({self.objective.where})"
            )

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        pair = torch.stack([total.detach().float(), count.detach().float()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def _totals(self) -> dict[str, list[float]]:
        """Sum and count of each metric over the processes; one that a process lacks
        counts nothing there.
        """
        from accelerate.utils import gather_object

        names = sorted(set(gather_object(list(self._sums))))
        if not names:
            return {}
        nothing = torch.zeros(2, device=self.accelerator.device)
        sums = torch.stack([self._sums.get(name, nothing) for name in names])
        self._sums = {}
        return dict(
            zip(
                names,
                self.accelerator.reduce(sums, reduction="sum").tolist(),
                strict=True,
            )
        )

    def _flush_eval(self) -> None:
        """Of a batch that is evaluated: its means, each with its own count."""
        for name, (total, count) in self._totals().items():
            self._metrics["eval"][name].append(total / count if count else math.nan)
            self._weights.setdefault(name, []).append(count)
