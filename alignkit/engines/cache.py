"""A key-value cache that writes new tokens into room reserved ahead.

transformers' own cache joins the old and the new for every token, which copies the
whole cache each time: two thirds of the time of a small model on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ROOM = 64  # tokens reserved beyond those needed


class ReservedLayer(DynamicLayer):
    """The keys and values (B, heads, L, D) of a layer that attends to all tokens
    before.
    """

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append S tokens (B, heads, S, D); returns all of them (B, heads, L + S, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = (
            append(self.keys, key_states),
            append(self.values, value_states),
        )
        return self.keys, self.values


def new_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model's config; layers with a window or a recurrence stay
    transformers' own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        ReservedLayer() if type(layer) is DynamicLayer else layer
        for layer in cache.layers
    ]
    return cache


def append(old: Tensor, new: Tensor) -> Tensor:
    """`old` (B, heads, L, D; or empty) followed by `new` (B, heads, S, D), in the
    memory of `old` where it has room.

    The room shows in the stride from one head to the next: selecting rows leaves a
    tensor without any.
    """
    rows, heads, count, size = new.shape
    length = old.shape[2] if old.numel() else 0
    end = length + count
    if length and end * size <= old.stride(1):
        room = old.as_strided((rows, heads, end, size), old.stride())
    else:
        room = new.new_empty(rows, heads, end + ROOM, size)
        if length:
            room[:, :, :length] = old
        room = room[:, :, :end]
    room[:, :, length:] = new
    return room
