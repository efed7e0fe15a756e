"""From a recipe to TRL's config objects: nothing renamed, nothing guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def arguments(config: Any, folder: Path, *, engine: str, cuda: bool) -> Any:
    """The SFTConfig, GRPOConfig, RLOOConfig or DPOConfig that a recipe means.

    `train:` holds TRL's own fields; the recipe's core keys fill in the rest. Without a
    GPU, what TRL turns on by default and a CPU cannot do (bf16, gradient checkpointing,
    pinned memory) is off unless asked for.
    """
    from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig

    fields: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "run_name": folder.name,
        "seed": config.seed,
        "report_to": list(config.track) or "none",
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    if not cuda:
        fields |= {
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
        }
        if config.launch.processes > 1:
            fields["ddp_backend"] = "gloo"
    if config.method in ("grpo", "rloo"):
        fields |= _generation(config, engine)
        fields["reward_weights"] = [reward.weight for reward in config.rewards.values()]
    if config.loss is not None and config.loss.name == "trl":
        fields |= config.loss.options
        if config.advantage is not None:
            fields["scale_rewards"] = {"std": "group", "none": "none"}[
                config.advantage.options.get("scale", "std")
            ]
    # What `generation` says stands in the same field as the options that only TRL
    # knows.
    extra = {
        **fields.get("generation_kwargs", {}),
        **(config.train.get("generation_kwargs") or {}),
    }
    fields |= config.train
    if extra:
        fields["generation_kwargs"] = extra
    kind = {"sft": SFTConfig, "grpo": GRPOConfig, "rloo": RLOOConfig, "dpo": DPOConfig}[
        config.method
    ]
    return kind(**fields)


def _generation(config: Any, engine: str) -> dict[str, Any]:
    g = config.generation
    fields: dict[str, Any] = {
        "temperature": g.temperature,
        "top_p": g.top_p,
        "top_k": g.top_k,
        "max_completion_length": g.max_new_tokens,
        "use_vllm": engine == "vllm",
    }
    vllm = engine == "vllm"
    extra: dict[str, Any] = {}
    if g.min_new_tokens:
        extra["min_tokens" if vllm else "min_new_tokens"] = g.min_new_tokens
    if g.stop:
        extra |= (
            {"stop": list(g.stop), "include_stop_str_in_output": True}
            if vllm
            else {"stop_strings": list(g.stop)}
        )
    if extra:
        fields["generation_kwargs"] = extra
    if not vllm:
        return fields
    if g.vllm is not None:
        fields |= {
            "vllm_mode": g.vllm.mode,
            "vllm_enable_sleep_mode": g.vllm.sleep,
            "vllm_tensor_parallel_size": g.vllm.tensor_parallel,
        }
        optional = {
            "vllm_gpu_memory_utilization": g.vllm.gpu_memory_utilization,
            "vllm_max_model_length": g.vllm.max_model_len,
            "vllm_server_base_url": g.vllm.server,
        }
        fields |= {key: value for key, value in optional.items() if value is not None}
    return fields
