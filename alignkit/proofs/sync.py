"""Whether rollouts come from the current weights: what vLLM reports of its own samples
beside what the trainer gives them.

Shapes: T tokens of one completion, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from alignkit.errors import WorkError, listing

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.engines.weights import Sums

PROBES = 4  # completions compared after each synchronisation
PROBE_TOKENS = 256  # of each, at most
# Options of SamplingParams that leave the distribution of the compared tokens as it is.
_NEUTRAL = {
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "min_tokens",
    "max_tokens",
    "seed",
    "detokenize",
}
# Mean difference in nats per token at most, and what is allowed whatever was measured.
_TOLERANCE = {"float32": 0.005, "bfloat16": 0.1, "float16": 0.1}
_ALWAYS = {"float32": 1e-5, "bfloat16": 0.005, "float16": 0.005}
# of the sum of sizes: float64 sums differ by the order of their terms alone
_SUMMED = 1e-9
_ROUNDINGS = 8.0  # times what equal weights were seen to differ by


def foreign(options: Iterable[str]) -> list[str]:
    """Those of a sampler's options that change its distribution in a way that
    `drawn_logprobs` does not follow.
    """
    return sorted(set(options) - _NEUTRAL)


def tolerance(dtype: str, stated: float | None, noise: float | None) -> float:
    """The mean difference (nats per token) that is allowed: as stated, else by what
    equal weights differed by (`noise`), within the bounds of the dtype.
    """
    if stated is not None:
        return stated
    if noise is None:
        return _TOLERANCE[dtype]
    return min(_TOLERANCE[dtype], max(_ALWAYS[dtype], _ROUNDINGS * noise))


def unequal(
    handed: Mapping[str, Sums],
    held: Mapping[str, Sums],
    packed: Mapping[str, Sequence[str]],
) -> tuple[int, list[str]]:
    """How many of vLLM's tensors could be compared with those that were handed over, and
    the names of those that are others.

    `packed`: which of a checkpoint's modules vLLM packs into one. What it lays out with
    other numbers, such as a padded vocabulary, is not compared.
    """
    count, wrong = 0, []
    for name, (numbers, total, size) in held.items():
        parts = [name]
        for module, names in packed.items():
            if f".{module}." in name and name not in handed:
                parts = [name.replace(f".{module}.", f".{part}.") for part in names]
        if not all(part in handed for part in parts):
            continue
        known = [handed[part] for part in parts]
        if sum(part[0] for part in known) != numbers:
            continue
        count += 1
        gap = abs(sum(part[1] for part in known) - total)
        size_gap = abs(sum(part[2] for part in known) - size)
        if max(gap, size_gap) > _SUMMED * max(size, 1e-12):
            wrong.append(name)
    return count, wrong


def require_arrived(wrong: Sequence[str]) -> None:
    """Refuse weights of which some did not arrive.

    Raises:
        WorkError: naming them.
    """
    if wrong:
        raise WorkError(
            f"the weights of vLLM are not the trainer's: {len(wrong)} tensors did not"
            f" arrive as they were handed over: {listing(list(wrong), 6)}"
        )


def drawn_logprobs(
    logits: Tensor,
    ids: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    shielded: int,
    ends: Sequence[int],
) -> Tensor:
    """(T,) log-probs of the last T of `ids` (1, L) as vLLM draws them: tempered, cut by
    top-k, top-p and min-p.

    `logits` (T, V) are those of the model. Of the first `shielded` tokens none can be
    one of `ends`.
    """
    import torch
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = logits.float() / temperature
    logits[:shielded, list(ends)] = -torch.inf
    if min_p:
        logits = MinPLogitsWarper(min_p)(ids, logits)
    if top_k > 0:
        logits = TopKLogitsWarper(top_k)(ids, logits)
    if top_p < 1:
        logits = TopPLogitsWarper(top_p)(ids, logits)
    drawn = ids[0, -len(logits) :, None]
    return logits.log_softmax(-1).gather(-1, drawn).squeeze(-1)


def gaps(ours: Tensor, reported: Sequence[float | None]) -> Tensor:
    """The absolute differences of (T,) log-probs from those reported, where both are
    known.
    """
    import torch

    known = [place for place, value in enumerate(reported) if value is not None]
    theirs = torch.tensor([reported[place] for place in known], device=ours.device)
    gap = (ours[known] - theirs).abs()
    # at the edge of top-p one side may drop a token that the other keeps
    return gap[gap.isfinite()]


def summed(gap: Tensor) -> Tensor:
    """(3,) sum, count and largest of the gaps of one process."""
    import torch

    largest = gap.max() if len(gap) else gap.sum()
    return torch.stack([gap.sum(), gap.new_tensor(len(gap)), largest])


def compared(sums: Tensor) -> tuple[float, float] | None:
    """Mean and largest difference over (processes, 3) of `summed`; None where nothing
    could be compared.
    """
    count = sums[:, 1].sum().item()
    if not count:
        return None
    return sums[:, 0].sum().item() / count, sums[:, 2].max().item()


def require_same(mean: float, largest: float, tolerance: float) -> None:
    """Refuse rollouts of other weights.

    Raises:
        WorkError: the mean difference (nats per token) is above the tolerance.
    """
    if mean > tolerance:
        raise WorkError(
            "the rollouts do not come from the current weights: the log-probs that vLLM"
            " reports for its own samples differ from the trainer's by"
            f" {mean:.4g} nats per token (largest {largest:.4g}, tolerance"
            f" {tolerance:.4g}), so the weights did not arrive in vLLM"
        )
