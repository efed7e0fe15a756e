"""Starting and stopping vLLM in this process, and what to say when it fails."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import AlignError, InputError, WorkError, asks_for
from alignkit.machine.gpus import cuda_available
from alignkit.run.files import read_json

if TYPE_CHECKING:
    from vllm import LLM

# Of PEFT's LoraConfig: vLLM 0.31 takes the adapter and leaves these out. What else it
# lacks, it refuses itself.
_UNREAD_BY_VLLM = ("alpha_pattern", "rank_pattern", "lora_bias")


@dataclass(frozen=True, slots=True)
class Limits:
    """What decides how much memory vLLM takes; vLLM's own names. None: vLLM's default."""

    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1

    def given(self) -> dict[str, Any]:
        """Those that are set, as options of `vllm.LLM`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def prepare_vllm() -> bool:
    """Set what vLLM reads from the environment, before it is imported; returns whether
    there is a GPU.

    Values already in the environment win. One process: scheduling is then
    deterministic, and an error keeps its cause. Logs go to stderr, as stdout belongs to
    `--json`; no usage statistics are sent.
    """
    gpu = cuda_available()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # warnings come by the dozen; failures are exceptions
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not gpu:
        # GiB; otherwise a share of the whole memory is taken
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return gpu


def start_llm(**options: Any) -> LLM:
    """A `vllm.LLM`; what it raises becomes one message with the limits in force."""
    gpu = prepare_vllm()
    try:
        from vllm import LLM
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise asks_for("vllm", "vllm", "the vllm engine") from error
    limits = Limits(
        **{key: options[key] for key in Limits.__dataclass_fields__ if key in options}
    )
    with explained(limits, f"vLLM did not start on {options['model']}"):
        # Compiling pays on a GPU only.
        return LLM(**{"enforce_eager": not gpu, **options})


def stop_llm(llm: LLM) -> None:
    """Stop an LLM that `start_llm` gave, and give its memory back."""
    import torch
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    gc.collect()
    if cuda_available():
        torch.cuda.empty_cache()


def foreign_tokenizer(model: str, how: str) -> str:
    """What is said of a model that vLLM opens with a tokenizer of its architecture's."""
    return (
        f"{model}: vLLM opens this model with another tokenizer than the one saved with"
        f" it: {how}. Use the transformers engine, or save the model under an"
        " architecture that has no tokenizer of its own (Llama)."
    )


def lora_settings(adapter: Path) -> tuple[str, int]:
    """(base model, rank to make room for) of a LoRA adapter's folder.

    Raises:
        InputError: it says what vLLM does not read and would silently compute without.
    """
    settings = read_json(adapter / "adapter_config.json")
    if unread := [name for name in _UNREAD_BY_VLLM if settings.get(name)]:
        raise InputError(
            f"{adapter}: vLLM does not read {', '.join(unread)} of a LoRA adapter and"
            " would answer as another model; use the transformers engine, or merge the"
            " adapter into its base"
        )
    base, r = settings.get("base_model_name_or_path"), settings.get("r")
    if not isinstance(base, str) or not isinstance(r, int):
        raise InputError(
            f"{adapter}/adapter_config.json: expected a text in base_model_name_or_path"
            f" and a number in r, got {base!r:.80} and {r!r:.80}"
        )
    room = next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= r), r)
    return base, room


@contextmanager
def explained(limits: Limits, what: str, trainer: str = "") -> Iterator[None]:
    """Turn what vLLM raises into one message; arguments as of `explain`."""
    try:
        yield
    # out of memory is a RuntimeError
    except (ValueError, RuntimeError, AssertionError, OSError) as error:
        raise explain(error, limits, what, trainer) from error


def explain(
    error: BaseException, limits: Limits, what: str, trainer: str = ""
) -> AlignError:
    """What failed, the numbers in force, and which of them to change.

    `trainer`: the settings of the trainer that shares the GPU with vLLM, for the
        message.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    low = said.lower()
    force = ", ".join(
        [
            *(f"{key}={value}" for key, value in limits.given().items()),
            *([trainer] if trainer else []),
        ]
    )
    if any(
        sign in low
        for sign in ("out of memory", "free memory on device", "memory utilization")
    ):
        change = [
            "lower gpu_memory_utilization (the rest is for others on this GPU)",
            "lower max_num_seqs",
        ]
        if trainer:
            change += [
                "turn on vllm_enable_sleep_mode",
                "turn on gradient_checkpointing",
                "take a smaller microbatch",
            ]
        return WorkError(
            f"{what}: out of memory. In force: {force}. To change:"
            f" {', or '.join(change)}. It said: {said}"
        )
    if "kv cache" in low or "cache blocks" in low:
        change = [
            "lower max_model_len",
            "raise gpu_memory_utilization",
            "raise tensor_parallel_size",
        ]
        text = (
            f"{what}: too little memory for the KV cache. In force: {force}. To change:"
            f" {', or '.join(change)}."
        )
        return WorkError(f"{text} It said: {said}")
    if "max_model_len" in low or "architecture" in low:
        return InputError(f"{what}: {said} In force: {force}.")
    return WorkError(
        f"{what}: {said}. In force: {force}. `align doctor` checks the installation."
    )
