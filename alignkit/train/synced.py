"""Trainers whose rollouts come from a `SyncedGeneration`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import trl

from alignkit.engines.vllm_start import Limits
from alignkit.errors import WorkError
from alignkit.machine.swap import swapped
from alignkit.train.vllm import SyncedGeneration

if TYPE_CHECKING:
    from alignkit.engines.base import Engine


class SyncedRollouts:
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer: its vLLM is a
    `SyncedGeneration`.

    Takes one more keyword: `sync_tolerance`, None for the default of the dtype.
    """

    # Of the trainer that a subclass brings in.
    _metrics: dict[str, Any]
    model: Any
    use_vllm: bool
    vllm_generation: Any

    def __init__(
        self, *args: Any, sync_tolerance: float | None = None, **kwargs: Any
    ) -> None:
        settings = kwargs.get("args")
        if settings is None or not settings.use_vllm:
            super().__init__(*args, **kwargs)
            return
        named = (
            "per_device_train_batch_size",
            "gradient_checkpointing",
            "vllm_enable_sleep_mode",
        )
        generation = functools.partial(
            SyncedGeneration,
            tolerance=sync_tolerance,
            trainer=", ".join(f"{name}={vars(settings)[name]}" for name in named),
            seed=settings.seed,
        )
        with swapped(_home_of(type(self)), "VLLMGeneration", generation):
            super().__init__(*args, **kwargs)
        if not isinstance(self.vllm_generation, SyncedGeneration):
            raise WorkError(
                f"TRL {trl.__version__} makes its vLLM in another place, so the sync"
                " could not be proven; install the tested version (see"
                " constraints.txt)"
            )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        generated = super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]
        if self.use_vllm and self.vllm_generation.difference is not None:
            metrics = self._metrics["train" if self.model.training else "eval"]
            mean, largest = self.vllm_generation.difference
            metrics["sync_difference/mean"].append(mean)
            metrics["sync_difference/max"].append(largest)
            self.vllm_generation.difference = None
        return generated


def _home_of(kind: type) -> ModuleType:
    """The module of TRL in which the trainer that this one extends is written."""
    names = (base.__module__ for base in kind.__mro__)
    return sys.modules[next(name for name in names if name.startswith("trl."))]


@contextmanager
def trainer_engine(trainer: Any, name: str) -> Iterator[Engine]:
    """The vLLM that a trainer generates with, as an engine for evals: current weights,
    proven, no second copy.

    Every process must enter it. `name` is how provenance calls the model.
    """
    generation = trainer.vllm_generation
    # Always: at the end of training the best weights may be put back
    # (load_best_model_at_end) within the same step.
    generation.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step
    if not generation.proven and generation.comparable:
        generation.prove()
        if generation.asleep:
            generation.sync_weights()
    if generation.mode == "server":
        from alignkit.engines.openai import OpenAIEngine

        client = generation.vllm_client
        yield OpenAIEngine(client.model, f"{client.base_url}/v1", server="vllm")
        return
    from alignkit.engines.vllm import VLLMEngine

    if generation.enable_sleep_mode:
        generation.llm.wake_up(tags=["kv_cache"])
    try:
        limits = Limits(
            generation.gpu_memory_utilization, None, generation.max_num_seqs
        )
        # vLLM draws from the process's stream, and so do the rollouts after this
        with torch.random.fork_rng():
            yield VLLMEngine(
                generation.llm, generation.processing_class, name=name, limits=limits
            )
    finally:
        if generation.enable_sleep_mode:
            generation.llm.sleep(level=2)
            generation._llm_weights_sleeping = True
