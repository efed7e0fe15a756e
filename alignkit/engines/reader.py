"""What a transformers model makes of token ids, with a cache for the tokens after them.

Shapes: B rows of the batch, S tokens put in at once, L tokens seen so far (with
padding), P places whose logits are at_places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from alignkit.engines.batching import shared_prefix
from alignkit.engines.cache import new_cache


class Reader:
    """A model that the caller owns, read without gradients and left as it was found."""

    def __init__(
        self, net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.net = net
        self.tokenizer = tokenizer
        layers = DynamicCache(config=net.config).layers
        self.attends_to_all = all(type(layer) is DynamicLayer for layer in layers)

    def read(
        self, encoded: list[list[int]], positions: int
    ) -> tuple[Tensor, Tensor, DynamicCache]:
        """The last `positions` logits (B, positions, V) of every prompt, the mask (B,
        L) of the cache, and the cache, which takes no further tokens where layers do
        not attend to all before them (see `begin`).

        Padding on the right needs no mask while reading (what follows a token cannot
        change it), and what all prompts begin with is then read once.
        """
        device, cache = self.net.device, new_cache(self.net.config)
        pad, lengths = self.tokenizer.pad_token_id, [len(ids) for ids in encoded]
        blanks = [max(lengths) - length for length in lengths]
        prefix = 0
        if len(encoded) > 1:
            prefix = max(0, min(shared_prefix(encoded), min(lengths) - positions))
        if prefix:
            shared = torch.tensor([encoded[0][:prefix]], device=device)
            self.forward(shared, None, cache)
            rows = torch.zeros(len(encoded), dtype=torch.long, device=device)
            cache.reorder_cache(rows)
        padded = [
            ids[prefix:] + [pad] * k for k, ids in zip(blanks, encoded, strict=True)
        ]
        mask = torch.tensor(
            [[1] * length + [0] * k for k, length in zip(blanks, lengths, strict=True)],
            device=device,
        )
        ends = torch.tensor(lengths, device=device)[:, None] - prefix
        # (B, positions)
        places = (ends + torch.arange(-positions, 0, device=device)).clamp(min=0)
        ids = torch.tensor(padded, device=device)
        return self.forward(ids, None, cache, places), mask, cache

    def begin(self, encoded: list[list[int]]) -> tuple[Tensor, Tensor, DynamicCache]:
        """The last logits (B, 1, V) of every prompt, the mask (B, L) of the cache, and
        the cache, for new tokens.

        New tokens come to lie behind padding on the right, which layers that do not
        attend to everything before them (windows, recurrences) cannot bear.
        """
        if self.attends_to_all:
            return self.read(encoded, 1)
        device, cache = self.net.device, new_cache(self.net.config)
        pad, width = self.tokenizer.pad_token_id, max(map(len, encoded))
        padded = [[pad] * (width - len(ids)) + ids for ids in encoded]
        blanks = [[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded]
        mask = torch.tensor(blanks, device=device)
        logits = self.forward(torch.tensor(padded, device=device), mask, cache)
        return logits, mask, cache

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        cache: DynamicCache,
        places: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, P, V) of ids (B, S), which join the cache under the mask (B, L),
        at places (B, P) or the last one.

        The vocabulary's projection is by far the largest product of a small model: it
        sees the at_places places only.
        """
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        if mask is not None:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        if places is None:
            return self.net(**inputs, use_cache=True, logits_to_keep=1).logits

        def at_places(_: object, hidden: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states, *rest = hidden  # (B, S, H)
            index = places[..., None].expand(-1, -1, states.shape[-1])
            return states.gather(1, index), *rest

        head = self.net.get_output_embeddings()
        hook = head.register_forward_pre_hook(at_places)
        try:
            return self.net(**inputs, use_cache=True, logits_to_keep=0).logits
        finally:
            hook.remove()

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, no dropout; afterwards every module is in the mode it was in."""
        training = [module for module in self.net.modules() if module.training]
        self.net.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True
