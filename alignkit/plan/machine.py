"""What a recipe needs that may not be on this machine: packages, trackers, a folder to
write to.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from alignkit.errors import MissingError
from alignkit.machine import doctor, hub
from alignkit.recipe.schema import Sampled, Stage

# Which package holds an optimizer that transformers knows by name: import name, and
# what pip installs.
OPTIMIZER_PACKAGES = {
    r"adamw_torch_[48]bit": ("torchao", "'alignkit[torchao]'"),
    r"adamw_torch_xla": ("torch_xla", "torch_xla"),
    r"adamw_torch_npu_fused": ("torch_npu", "torch-npu"),
    r"adamw_anyprecision": (
        "torchdistx",
        "git+https://github.com/pytorch/torchdistx",
    ),
    r"galore_.*": ("galore_torch", "galore-torch"),
    r"apollo_.*": ("apollo_torch", "apollo-torch"),
    r"(ada)?lomo": ("lomo_optim", "lomo-optim"),
    r"grokadamw": ("grokadamw", "grokadamw"),
    r"schedule_free_.*": ("schedulefree", "schedulefree"),
    r"stable_adamw": ("optimi", "torch-optimi"),
    r"(paged_)?\w+_(8|32)bit|adamw_bnb_8bit|rmsprop_bnb.*|ademamix": (
        "bitsandbytes",
        "'alignkit[quantize]'",
    ),
}
TRACKERS = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}


def require_trackers(track: Iterable[str]) -> None:
    """Raises MissingError for those that are not installed."""
    if absent := list(_trackers_missing(track)):
        raise MissingError(*absent)


def _trackers_missing(track: Iterable[str]) -> Iterator[str]:
    for tracker in track:
        if importlib.util.find_spec(TRACKERS[tracker]) is None:
            yield f"track: {tracker} is not installed: pip install 'alignkit[{tracker}]'"


def missing(config: Stage) -> list[str]:
    """What the recipe needs and this machine lacks, each with what installs or sets it."""
    found: list[str] = []
    if isinstance(config, Sampled) and config.generation.engine == "vllm":
        found += doctor.vllm_missing(config.generation.vllm)
    if (
        config.model.attention == "flash_attention_2"
        and importlib.util.find_spec("flash_attn") is None
    ):
        found.append(
            "model.attention flash_attention_2: pip install 'alignkit[flash]' (a GPU),"
            " or say auto"
        )
    for key, package, install in _packages(config):
        if importlib.util.find_spec(package) is None:
            found.append(f"{key} needs the package '{package}': pip install {install}")
    found += _trackers_missing(config.track)
    for name in ("push_to_hub", "log_completions_hub_repo"):
        if config.train.get(name) and (
            "HF_HUB_OFFLINE" in os.environ or not hub.reachable()
        ):
            found.append(f"train.{name}: the Hub is not reached from here")
    root = Path(config.output.root)
    parent = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        found.append(f"output.root: {parent} cannot be written; choose another folder")
    elif parent.is_file():
        found.append(f"output.root: {parent} is a file, not a folder")
    return found


def _packages(config: Stage) -> list[tuple[str, str, str]]:
    """(setting, package to import, what pip installs) for the settings of `train` that
    need more than TRL brings.
    """
    optim, found = str(config.train.get("optim", "")), []
    known = next(
        (
            needs
            for names, needs in OPTIMIZER_PACKAGES.items()
            if re.fullmatch(names, optim)
        ),
        None,
    )
    if known is not None:
        found.append((f"train.optim {optim}", *known))
    if config.model.quantize is not None:
        found.append(("model.quantize", "bitsandbytes", "'alignkit[quantize]'"))
    if config.train.get("use_liger_kernel"):
        found.append(("train.use_liger_kernel", "liger_kernel", "'alignkit[liger]'"))
    if config.train.get("deepspeed"):
        found.append(("train.deepspeed", "deepspeed", "deepspeed"))
    return found
