"""What the live model holds of a recipe's settings, by dotted keys."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from alignkit import models
from alignkit.recipe.schema import Build, Stepped, walk


def of_model(config: Stepped, trainer: Any) -> dict[str, Any]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = model.config
    text = base.get_text_config()
    settings: dict[str, Any] = {
        "model.dtype": str(model.dtype).removeprefix("torch."),
        "model.attention": base._attn_implementation,
        "model.path": config.model.path,
    }
    if config.model.path is not None and base._name_or_path:
        same_model = Path(base._name_or_path).name == Path(config.model.path).name
        if not same_model and not Path(config.model.path, "manifest.json").is_file():
            settings["model.path"] = base._name_or_path
    for key in ("dtype", "attention"):
        if vars(config.model)[key] == "auto":
            settings[f"model.{key}"] = "auto"
    if config.model.build is not None:
        for declared in walk.declarations().values():
            if declared.key.config:
                settings[declared.dotted] = vars(text)[declared.key.config]
        settings["model.build.tokenizer"] = _tokenizer(config.model.build, trainer)
    trained = {n for n, w in model.named_parameters() if w.requires_grad}
    if config.model.lora is None:
        whole = {n for n, w in model.named_parameters() if w.is_floating_point()}
        if trained != whole:
            settings["model.path"] = f"{len(whole - trained)} weights are frozen"
    else:
        settings |= _lora(config.model.lora, model)
    if config.model.quantize is not None:
        known = plain(base.quantization_config)
        settings |= {f"model.quantize.{k}": v for k, v in known.items()}
    return settings


def _tokenizer(build: Build, trainer: Any) -> str:
    vocabulary = models.build_tokenizer(build.tokenizer, build.max_length).get_vocab()
    same_one = trainer.processing_class.get_vocab() == vocabulary
    return build.tokenizer if same_one else "another vocabulary"


def _lora(stated: Mapping[str, Any], model: Any) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapter = model.active_adapter
    known = {k: plain(v) for k, v in vars(model.peft_config[adapter]).items()}
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    if not layers:
        return {f"model.lora.{key}": None for key in stated}
    settings = {f"model.lora.{key}": known[key] for key in stated if key in known}
    if "alpha" in stated:
        settings["model.lora.alpha"] = known["lora_alpha"]
    if "r" in stated and not known["rank_pattern"]:
        settings["model.lora.r"] = only(layer.r[adapter] for layer in layers)
    if isinstance(stated.get("target_modules"), str):  # PEFT resolves a pattern
        settings["model.lora.target_modules"] = stated["target_modules"]
    return settings


def only(values: Iterable[Any]) -> Any:
    """The one value of all, or the list of different ones."""
    known = [key for key, _ in itertools.groupby(sorted(values))]
    return known[0] if len(known) == 1 else known


def plain(value: Any) -> Any:
    """A value of a library as a recipe would state it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=str)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if dataclasses.is_dataclass(value) or hasattr(value, "to_dict"):
        return plain(dict(vars(value)))
    return value
