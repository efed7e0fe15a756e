"""How many CPU threads a model is run with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alignkit.machine.gpus import cuda_available

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = 1_000_000  # parameters


def settle_threads(model: PreTrainedModel) -> None:
    """One CPU thread for a tiny model: the quickstart's SFT took 1.2 to 2.3 times as
    long with two.
    """
    import torch

    if (
        model.num_parameters() < TINY
        and not cuda_available()
        and "OMP_NUM_THREADS" not in os.environ
    ):
        torch.set_num_threads(1)
