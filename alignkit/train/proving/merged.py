"""A merged adapter, tensor by tensor: the base and what the adapter adds to it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

ROUNDINGS = 4  # of a weight, of what is added to it, of the sum
SHARE = 0.01  # of the largest change, for products in lower precision
KEPT = 0.9


def unequal(live: Any, saved: Any) -> tuple[list[str], str]:
    """Names of saved tensors that are not the live model's with its adapter merged, and
    a note where rounding lost much of the adapter.
    """
    wrong = []
    kept = whole = 0.0
    for name, tensor in saved.state_dict().items():
        path, _, leaf = name.rpartition(".")
        module = _module(live, path)
        if not isinstance(module, _tuned()):
            # an adapter's whole modules are in float32, whatever the model is in
            if not torch.equal(module.state_dict()[leaf].to(tensor), tensor):
                wrong.append(name)
            continue
        base, merged = _merged(module, leaf, live.active_adapter)
        found, change = tensor.cpu().float(), merged - base
        room = ROUNDINGS * torch.finfo(tensor.dtype).eps * merged.abs()
        room = room + SHARE * change.abs().max()
        if not bool(((found - merged).abs() <= room).all()):
            wrong.append(name)
        kept += float(((found - base) * change).sum())
        whole += float(change.square().sum())
    if not whole or kept / whole >= KEPT:
        return wrong, ""
    return wrong, (
        f"rounding kept {max(kept / whole, 0):.0%} of the adapter in the merged weights;"
        " the adapter on its base has all of it"
    )


def _tuned() -> type:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer


def _module(live: Any, path: str) -> Any:
    """The live module that a saved tensor is of."""
    from peft.utils import ModulesToSaveWrapper

    module = live.get_base_model().get_submodule(path)
    if isinstance(module, ModulesToSaveWrapper):
        return module.modules_to_save[live.active_adapter]
    return module


def _merged(module: Any, leaf: str, adapter: str) -> tuple[Tensor, Tensor]:
    """A tensor of an adapted layer as it was, and merged; in float32, on the CPU, whose
    memory a training run leaves free.
    """
    layer = copy.deepcopy(module).cpu().float()
    base = layer.get_base_layer().state_dict()[leaf].clone()
    with torch.no_grad():
        layer.merge(adapter_names=[adapter])
    return base, layer.get_base_layer().state_dict()[leaf]
