"""From a model in training to a vLLM that runs already: its weights by name, and vLLM's
layer-wise reload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from alignkit.errors import WorkError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from vllm import LLM

# What wrappers put into parameter names: torch.compile (also of single layers),
# activation checkpointing.
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


def checkpoint_name(name: str) -> str:
    """A parameter's name without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names of a checkpoint, one after the other; a LoRA adapter
    is merged into its layers.

    The base weights are put back bit by bit: PEFT's unmerging only subtracts, which in
    bfloat16 lets them drift from step to step. A tensor is valid until the next one is
    taken.
    """
    from accelerate.utils import extract_model_from_parallel
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    if not isinstance(inner, PeftModel):
        for name, parameter in inner.named_parameters():
            yield checkpoint_name(name), parameter.data
        return
    layers = {
        name: layer
        for name, layer in inner.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }
    for name, parameter in inner.named_parameters():
        if inner.base_model.prefix in name or ".original_module." in name:
            continue  # the adapter itself, and what `modules_to_save` replaces
        layer = layers.get(name.partition(".base_layer.")[0])
        plain = (
            checkpoint_name(name)
            .removeprefix("base_model.model.")
            .replace(".base_layer.", ".")
        )
        plain = re.sub(r"\.modules_to_save\.[^.]+\.", ".", plain)
        if layer is None:
            yield plain, parameter.data
            continue
        weights = list(layer.base_layer.parameters())
        saved = [weight.data.clone() for weight in weights]
        layer.merge()
        try:
            yield plain, parameter.data
        finally:
            layer.unmerge()
            for weight, before in zip(weights, saved, strict=True):
                weight.data.copy_(before)


def reload_weights(llm: LLM, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Give a running `vllm.LLM` new weights, and forget what it cached under the old
    ones.

    vLLM may have repacked its weights for its kernels (the CPU build always does),
    which its `load_weights` cannot undo; its layer-wise reload loads and repacks anew.
    That keeps tensors until their layer is complete, while the ones yielded may change
    by then (merging is undone, shards are freed): hence the copies.
    """
    copies = ((name, weight.detach().clone()) for name, weight in weights)
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": copies})
    llm.apply_model(_repack_shared)
    if not llm.reset_prefix_cache():
        raise WorkError(
            "vLLM kept its prefix cache of the old weights: requests were still running"
            " during a sync"
        )


Sums = tuple[int, float, float]  # numbers, their sum, the sum of their sizes


def sums(weight: Tensor) -> Sums:
    """What tells a tensor from another without its layout."""
    import torch

    wide = torch.float64
    total, size = weight.sum(dtype=wide), weight.abs().sum(dtype=wide)
    return weight.numel(), float(total), float(size)


def read_back(llm: LLM) -> tuple[dict[str, Sums], dict[str, list[str]]]:
    """The weights that a running vLLM holds by its own names, and which of a
    checkpoint's it packs into one.
    """
    held, packed = llm.apply_model(_held)[0]
    return held, packed


def _held(net: nn.Module) -> tuple[dict[str, Sums], dict[str, list[str]]]:
    held = {name: sums(weight.data) for name, weight in net.named_parameters()}
    return held, dict(vars(type(net)).get("packed_modules_mapping", {}))


def _repack_shared(net: nn.Module) -> None:
    """Pack anew the layers that share another's weight: a tied head loads nothing, so
    its packed copy stays old.
    """
    packed = set()
    for layer in net.modules():
        weight = layer._parameters.get("weight")
        if weight is None or not weight.numel():
            continue
        if id(weight) in packed:
            layer.quant_method.process_weights_after_loading(layer)
        packed.add(id(weight))
