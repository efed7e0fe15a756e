"""How far an optimizer step moves the weights, read off a sample of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TENSORS, EACH = 16, 4096  # of the sample


class Update:
    """The newest step: the size of the update relative to the weights, and the share of
    bfloat16 weights that did not move.
    """

    def __init__(self) -> None:
        self._weights: list[Tensor] = []  # views of the sampled weights
        self._before: list[Tensor] = []
        self._sums = torch.zeros(4)

    def before(self, model: Any) -> None:
        """Just before the optimizer's step."""
        trained = [w for w in model.parameters() if w.requires_grad and w.numel()]
        every = max(1, len(trained) // TENSORS)
        # a shard of FSDP or DeepSpeed has no flat view that can be read here
        plain = [w for w in trained[::every][:TENSORS] if type(w.data) is Tensor]
        self._weights = [_sample(weight.data) for weight in plain]
        self._before = [weight.clone() for weight in self._weights]

    def after(self) -> None:
        """Just after it."""
        for number, (now, then) in enumerate(
            zip(self._weights, self._before, strict=True)
        ):
            halved = now.dtype == torch.bfloat16
            still = (now == then).sum() if halved else now.new_zeros(())
            sums = torch.stack(
                [
                    (now.float() - then.float()).square().sum(),
                    then.float().square().sum(),
                    still.float(),
                    still.new_tensor(float(now.numel() if halved else 0)).float(),
                ]
            )
            self._sums = sums if number == 0 else self._sums + sums
        self._weights, self._before = [], []

    def numbers(self) -> dict[str, float]:
        """For a row of metrics.jsonl."""
        moved, size, still, halved = self._sums.tolist()
        numbers = {"train/update": (moved / size) ** 0.5} if size else {}
        if halved:
            numbers["train/weights_unmoved"] = still / halved
        return numbers


def _sample(weight: Tensor) -> Tensor:
    flat = weight.view(-1) if weight.is_contiguous() else weight.reshape(-1)
    return flat[:: max(1, flat.numel() // EACH)][:EACH]
