"""Precision, processes, loading of data, optimizers: what torch and transformers refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alignkit.recipe.rules import sources
from alignkit.recipe.rules.batches import batches
from alignkit.recipe.rules.rule import Facts, Problem
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.schema import Trained

LOW_RANK = ("galore_", "apollo_")  # optimizers that work on chosen modules


def one_precision(config: Trained, facts: Facts) -> Iterator[Problem]:
    """bfloat16 or float16."""
    for one, other in (("fp16", "bf16"), ("fp16_full_eval", "bf16_full_eval")):
        if setting(config, one) and setting(config, other):
            yield ("train", one), f"{other} is on too; leave one of the two out"


def precision_of_the_machine(config: Trained, facts: Facts) -> Iterator[Problem]:
    """What only a GPU can do."""
    if facts.gpus != 0:
        return
    if setting(config, "tf32"):
        yield ("train", "tf32"), "needs a GPU, and there is none here"
    if config.train.get("activation_offloading"):
        yield ("train", "activation_offloading"), "needs a GPU, and there is none here"
    on_gpu = config.train.get("use_cpu") is False
    for name in ("bf16", "bf16_full_eval"):
        if on_gpu and config.train.get(name):
            text = "needs a GPU, and there is none here; leave use_cpu out"
            yield ("train", name), text


def checkpointing(config: Trained, facts: Facts) -> Iterator[Problem]:
    """TRL's selective checkpointing is for SFT, and for one kind of checkpointing."""
    stated = setting(config, "gradient_checkpointing_kwargs") or {}
    if not isinstance(stated, Mapping) or "selective" not in stated:
        return
    key = ("train", "gradient_checkpointing_kwargs", "selective")
    if config.method not in ("sft", "expert_iteration"):
        yield key, f"TRL has it for SFT only, not for {config.method}"
    elif stated["selective"] and not setting(
        config, "gradient_checkpointing", facts.gpus
    ):
        yield key, "needs train.gradient_checkpointing: true"
    elif stated["selective"] and stated.get("use_reentrant"):
        yield key, "needs use_reentrant: false"


def loading_workers(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Settings of processes that load data need some."""
    if setting(config, "dataloader_num_workers"):
        return
    for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        if setting(config, name):
            yield ("train", name), "needs train.dataloader_num_workers above 0"


def cache_emptying(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Every so many steps."""
    steps = setting(config, "torch_empty_cache_steps")
    if steps is not None and steps < 1:
        yield (
            ("train", "torch_empty_cache_steps"),
            f"given {steps}, expected at least 1",
        )


def accelerator(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Gradient accumulation has one number."""
    stated = setting(config, "accelerator_config")
    inner = (
        stated.get("gradient_accumulation_kwargs")
        if isinstance(stated, Mapping)
        else None
    )
    if "num_steps" in (inner or {}):
        key = (
            "train",
            "accelerator_config",
            "gradient_accumulation_kwargs",
            "num_steps",
        )
        yield key, "use train.gradient_accumulation_steps"


def several_processes(config: Trained, facts: Facts) -> Iterator[Problem]:
    """What divides work needs several to divide it among."""
    if config.launch.processes > 1:
        return
    for name in ("fsdp", "ddp_backend"):
        if setting(config, name):
            yield ("train", name), "needs several processes; use launch.processes"


def sharding(config: Trained, facts: Facts) -> Iterator[Problem]:
    """FSDP's words, and what cannot stand beside them."""
    stated = setting(config, "fsdp")
    if not stated:
        return
    if config.launch.processes > 1:
        # its evals and the final save belong to the first process, and gathering the
        # shards needs all: they would wait for one another
        text = "a sharded model cannot be evaluated and saved here yet; leave it out"
        yield ("train", "fsdp"), text
    if setting(config, "deepspeed"):
        yield ("train", "fsdp"), "deepspeed shards too; leave one of the two out"
    known = sources.enum("trainer_utils.py", "FSDPOption").values()
    words = stated.split() if isinstance(stated, str) else []
    for word in words:
        if word not in known:
            yield (
                ("train", "fsdp"),
                f"given {word!r}, expected one of {', '.join(known)}",
            )
    if setting(config, "save_only_model") and setting(config, "load_best_model_at_end"):
        text = "FSDP cannot load the best model without the optimizer's state"
        yield ("train", "save_only_model"), text


def split_sequences(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Parallelism along the sequence."""
    stated = setting(config, "parallelism_config")
    if not isinstance(stated, Mapping):
        return
    for size in ("cp_size", "sp_size"):
        key = ("train", "parallelism_config", size)
        if stated.get(size, 1) == 1:
            continue
        if config.method in ("grpo", "rloo"):
            yield key, f"TRL's {config.method} cannot cut sequences"
        elif (
            config.method != "dpo" and setting(config, "packing") and size == "cp_size"
        ):
            yield key, "would let packed sequences see one another; drop train.packing"


def moments(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Decay rates of averages."""
    for name in ("adam_beta1", "adam_beta2"):
        if setting(config, name) >= 1:
            yield (
                ("train", name),
                f"given {setting(config, name)}, expected less than 1",
            )


def optimizer_arguments(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Text of the form `name=value, name=value`."""
    for part in (config.train.get("optim_args") or "").split(","):
        if part and part.count("=") != 1:
            yield ("train", "optim_args"), f"given {part!r}, expected NAME=VALUE"


def low_rank_optimizers(config: Trained, facts: Facts) -> Iterator[Problem]:
    """They work on the modules that are named."""
    optim = config.train.get("optim", "")
    if not optim.startswith(LOW_RANK):
        return
    if not config.train.get("optim_target_modules"):
        yield ("train", "optim"), f"{optim} needs train.optim_target_modules"
    b = batches(config)
    if optim.endswith("_layerwise") and (b.accumulation > 1 or b.processes > 1):
        text = f"{optim} works in one process, with gradient_accumulation_steps 1"
        yield ("train", "optim"), text


RULES = (
    one_precision,
    precision_of_the_machine,
    checkpointing,
    loading_workers,
    cache_emptying,
    accelerator,
    several_processes,
    sharding,
    split_sequences,
    moments,
    optimizer_arguments,
    low_rank_optimizers,
)
