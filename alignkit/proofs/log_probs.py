"""A trainer's log-probs beside those of the model on each row alone.

Shapes: B rows, L columns of a batch; T tokens of one document, of which the T - 1 after
the first have log-probs; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PADDING = 5  # tokens after a row, which no causal model may feel
# of the log-probs that rounding alone changes: what a proof allows, in units of the
# dtype's precision, and at most in nats
_ROUNDINGS, _MOST = 32.0, 0.05


@dataclass(frozen=True, slots=True)
class Document:
    """A row of a batch, or one of several that are packed into it."""

    row: int
    start: int  # its first column
    scored: Tensor  # (T - 1,) bool: tokens that are trained on

    @property
    def columns(self) -> slice:
        """Where it stands in its row."""
        return slice(self.start, self.start + len(self.scored) + 1)


def documents(
    attended: Tensor, trained: Tensor, position_ids: Tensor | None
) -> list[Document]:
    """Those of a batch: `attended` and `trained` (B, L) bool; packed ones begin at
    position 0 (B, L).
    """
    rows = []
    for row in range(len(attended)):
        places = attended[row].nonzero().flatten()
        first, end = int(places[0]), int(places[-1]) + 1
        starts = [first]
        if position_ids is not None:
            starts = (position_ids[row] == 0).nonzero().flatten().tolist()
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            if trained[row, start + 1 : stop].any():
                rows.append(Document(row, start, trained[row, start + 1 : stop]))
    return rows


@torch.no_grad()
def alone(model: Any, ids: Tensor, temperature: float, padding: int = 0) -> Tensor:
    """(T - 1,) log-probs of a document's tokens (T,) by the model's own forward pass;
    with `padding`, such tokens follow it.
    """
    logits = logits_alone(model, ids, padding) / temperature
    return logits[:-1].log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)


@torch.no_grad()
def logits_alone(model: Any, ids: Tensor, padding: int = 0) -> Tensor:
    """(T, V) float32 logits of a document's tokens (T,) by the model's own pass."""
    filled = torch.cat([ids, ids.new_full((padding,), int(ids[-1]))])[None]
    mask = torch.ones_like(filled)
    mask[0, len(ids) :] = 0
    kwargs = {"attention_mask": mask} if padding else {}
    logits: Tensor = model(input_ids=filled, use_cache=False, **kwargs).logits
    return logits[0, : len(ids)].float()


def spread(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The root mean square of the differences (nats) over all tokens."""
    gaps = torch.cat([(a - b).float() for a, b in zip(one, other, strict=True)])
    return float(gaps.square().mean().sqrt())


def allowed(noise: float, dtype: torch.dtype, largest: float) -> float:
    """The difference (nats, root mean square) that rounding explains.

    `noise` is what padding after a row changes, which is nothing but rounding; `largest`
    the largest log-prob by size. A second way through the model may sum in another order
    in every layer, hence the factors.
    """
    rounding = _ROUNDINGS * torch.finfo(dtype).eps * (1 + largest)
    return 4 * noise + min(rounding, _MOST)


def allowed_head(dtype: torch.dtype, largest: float) -> float:
    """The difference (nats, root mean square) between two heads on the same states that
    rounding explains: of logits, the `largest` of which by size has this one's.
    """
    return min(torch.finfo(dtype).eps * largest, _MOST)


def exchanged(ids: Tensor) -> Tensor:
    """Other tokens at every place, all of them among those of `ids` (any shape)."""
    known = ids.unique()
    return known[(torch.searchsorted(known, ids) + 1) % len(known)]
