"""Tests on a real vLLM: `make test-vllm`. On a machine with a GPU the same tests run on
the CUDA build.

The folder is not called vllm: pytest would put it into sys.modules under that name.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from commands import SECONDS, align

HERE = Path(__file__).parent

SFT = """
name: tiny
method: sft
model: {build: {tokenizer: digits, hidden_size: 64, layers: 2, heads: 2, intermediate_size: 256, init_std: 0.08,
        max_length: 64}}
data: {train: {dataset: arithmetic, split: train, size: 6400, worked: 0.4}, prompt: arithmetic}
train: {max_steps: 200, per_device_train_batch_size: 32, learning_rate: 5.0e-3, lr_scheduler_type: cosine,
        warmup_steps: 10, adam_beta2: 0.98, logging_steps: 50, save_strategy: "no"}
"""


def pytest_collection_modifyitems(items):
    absent = importlib.util.find_spec("vllm") is None
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(SECONDS))
            if absent:
                item.add_marker(
                    pytest.mark.skip(
                        reason="vLLM is not installed here: make test-vllm"
                    )
                )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a small model that has learned some arithmetic, so that its answers
    are not noise.
    """
    home = tmp_path_factory.mktemp("trained")
    (home / "sft.yaml").write_text(SFT)
    align("run", "sft.yaml", cwd=home)
    (model,) = home.glob("runs/*/model")
    return model
