"""A device that runs out of memory: the same training in smaller parts, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from test_train_resume import left, train

from alignkit.errors import WorkError
from alignkit.run import Run

# whichever microbatch of an optimizer step it strikes
CASES = {
    "sft": {"loss": {"name": "sft"}},
    "grpo": {"loss": {"name": "grpo_clip"}},
}
BATCHES = {
    "evals": {},
    "train": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
    },
}


def strike(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """The backward passes that fail, after they have added to the gradients."""
    count, backward = iter(range(1000)), Accelerator.backward

    def failing(self: Accelerator, loss: torch.Tensor, **keywords: object) -> None:
        backward(self, loss, **keywords)
        if next(count) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(Accelerator, "backward", failing)


def close(found: object, expected: object) -> bool:
    if isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys()
        return all(close(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected)
        return all(map(close, found, expected))
    if isinstance(expected, float):
        return found == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
    return found == expected


@pytest.mark.parametrize(
    ("case", "calls"), [("sft", {3}), ("grpo", {2}), ("sft", {0, 4}), ("grpo", {1, 5})]
)
def test_training_goes_on_in_halves_with_the_numbers_of_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, calls: set[int]
):
    change = {**BATCHES, **CASES[case]}
    for name in ("whole", "struck"):
        (tmp_path / name).mkdir()
    expected = left(train(tmp_path / "whole", case, change))
    strike(monkeypatch, calls)
    run = train(tmp_path / "struck", case, change)
    assert close(left(run)["metrics"], expected["metrics"])
    assert close(left(run)["rollouts"], expected["rollouts"])
    assert close(left(run)["weights"], expected["weights"])
    told = Run.open(run).manifest["memory"]
    assert len(told) == len(calls)
    assert "2 rows are computed at once instead of 4" in told[0]


@pytest.mark.parametrize(
    ("case", "change", "text"),
    [
        ("dpo", {}, "the loss depends on how the batch is cut"),
        ("grpo", {"loss": {"name": "trl"}}, "the loss depends on how the batch is cut"),
        ("sft", {"train": {"per_device_train_batch_size": 1}}, "with 1 rows at once"),
    ],
)
def test_where_it_cannot_be_cut_one_line_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, change: dict, text: str
):
    strike(monkeypatch, {2})
    with pytest.raises(WorkError, match=f"out of memory at step .*{text}") as said:
        train(tmp_path, case, {"evals": {}, **change})
    assert "\n" not in str(said.value) and "per_device_train_batch_size" in str(
        said.value
    )
    assert Run.open(tmp_path / "run").status == "failed"
