"""What each optimizer step took: the clock, and the peak of torch's memory on the GPU since the step before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from alignkit import Callback, RunInfo, hookimpl


def note(folder: Path, step: int, loss: float, reward: float | None) -> None:
    """Append one line to `folder`/gauge.jsonl; `peak` and `reserved` are bytes, 0 without a GPU."""
    import torch

    row = {"step": step, "loss": loss, "reward": reward, "peak": 0, "reserved": 0}
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        row["peak"] = torch.cuda.max_memory_allocated()
        row["reserved"] = torch.cuda.max_memory_reserved()
        torch.cuda.reset_peak_memory_stats()
    row["clock"] = time.perf_counter()
    with (folder / "gauge.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def step_logged(run: RunInfo, step: int, row: Mapping[str, float]) -> None:
    """Of the steps of training only, not of evals."""
    if "train/loss" in row:
        note(run.folder, step, row["train/loss"], row.get("train/reward"))


@hookimpl
def align_callbacks() -> Iterator[Callback]:
    yield Callback(name="gauge", step_logged=step_logged)
