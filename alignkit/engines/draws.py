"""The next token of every row, drawn from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.engines.base import Sampling


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Tokens (B,) drawn from logits (B, V) by the inverse of the distribution at
    `uniform` (B,), each in [0, 1).
    """
    logits, order = logits / sampling.temperature, None
    if sampling.top_k or sampling.top_p < 1:
        vocabulary = logits.shape[-1]
        logits, order = logits.topk(min(sampling.top_k or vocabulary, vocabulary))
    weights = logits.softmax(-1)
    if sampling.top_p < 1:
        weights = weights * (weights.cumsum(-1) - weights < sampling.top_p)
    if sampling.min_p:
        weights = weights * (weights >= sampling.min_p * weights.amax(-1, True))
    reached = weights.double().cumsum(-1)
    # `right`: the first place whose sum lies above the target, so a weight of zero is
    # never drawn.
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)
    place = place.clamp(max=logits.shape[-1] - 1)
    if order is not None:
        place = order.gather(-1, place)
    return place.squeeze(-1)


def penalized(logits: Tensor, texts: list[list[int]], penalty: float) -> Tensor:
    """Logits (B, V) with those of the tokens of each row's text, prompt included, made
    less likely (Keskar et al. 2019, arXiv:1909.05858).
    """
    marks = logits.new_zeros(logits.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        marks[row, list(set(text))] = True
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(marks, lowered, logits)
