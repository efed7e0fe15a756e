"""What a trainer minimises: a loss plugin, how its tokens are reduced, how rewards
become advantages.

Shapes: B rows of a microbatch, T tokens of its longest row, N completions of a
generation batch.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, PluginError, WorkError, place_of
from alignkit.types import Advantage, Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step covers: every microbatch of it, on every process."""

    tokens: Tensor  # (), response tokens
    sequences: Tensor  # (), rows, also those without a response token
    # DDP averages gradients over them, so the loss is multiplied by their number
    processes: int


@dataclass(frozen=True)
class Objective:
    """A loss and an advantage with their options, and the normalisation of the loss.

    `normalize` is one of the loss's own `normalize`, None taking the first; a loss that
    returns one value per sequence takes none. `constant` goes with
    `normalize="constant"`; None is the longest completion allowed (GRPO, RLOO), or 1
    (SFT). `advantage=None` leaves TRL's own advantages (GRPO, RLOO).

    Raises:
        InputError: a normalisation that the loss cannot take, a constant without use or
            not above zero.
    """

    loss: Loss
    options: Mapping[str, Any] = field(default_factory=dict)
    normalize: str | None = None
    constant: float | None = None
    advantage: Advantage | None = None
    advantage_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.loss.normalize
        if self.normalize is None and known:
            object.__setattr__(self, "normalize", known[0])
        elif self.normalize is not None and self.normalize not in known:
            takes = (
                f"one of {', '.join(known)}"
                if known
                else "no `normalize`: it returns one value per sequence"
            )
            raise InputError(
                f"loss '{self.loss.name}' takes {takes}; got {self.normalize!r}"
                f" ({self.where})"
            )
        if self.constant is not None and self.normalize != "constant":
            raise InputError(
                f"loss.constant is {self.constant} but loss.normalize is"
                f" {self.normalize!r}: the constant is read by `normalize: constant`"
                " only"
            )
        if self.constant is not None and not (
            math.isfinite(self.constant) and self.constant > 0
        ):
            raise InputError(
                f"loss.constant must be a number above 0, got {self.constant}"
            )

    @property
    def where(self) -> str:
        """`file:line` of the loss."""
        return place_of(self.loss.function)

    def settled(self, method: str, config: Any) -> Objective:
        """This objective beside a TRL config, with the constant filled in.

        What a recipe can get wrong is refused by `recipe.rules`, before a model is
        loaded; here stands only what a loss would be wrong without.
        """
        assert method in self.loss.methods, self.loss
        assert not config.use_liger_kernel, "Liger goes around the loss"
        if method == "sft":
            assert self.normalize == "token" or not _padding_free(config), config
        if method in ("grpo", "rloo") and self.normalize == "token":
            # every response of a step must be known before its first backward
            slices = config.steps_per_generation * config.num_iterations
            assert slices % config.gradient_accumulation_steps == 0, config
        if method == "grpo" and not self.loss.normalize:
            assert not config.beta, "a KL term per token needs a loss per token"
        if self.normalize != "constant" or self.constant is not None:
            return self
        constant = 1.0 if method == "sft" else float(config.max_completion_length)
        return dataclasses.replace(self, constant=constant)

    def __call__(self, batch: Any) -> tuple[Tensor, Mapping[str, Any]]:
        """The loss (B, T) or (B,) of a batch, and metrics.

        Raises:
            PluginError: the loss returned something else.
        """
        import torch

        logps = batch.chosen_logps if hasattr(batch, "chosen_logps") else batch.logps
        shape = tuple(logps.shape) if self.loss.normalize else tuple(logps.shape[:1])
        result = self.loss.function(batch, **self.options)
        values, metrics = (
            result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        )
        expected = (
            f"one value per {'token' if self.loss.normalize else 'sequence'}, shape"
            f" {shape}"
        )
        if not isinstance(values, torch.Tensor):
            raise PluginError(
                self._fault(f"returned {type(values).__name__}; expected {expected}")
            )
        if tuple(values.shape) != shape:
            raise PluginError(
                self._fault(
                    f"returned shape {tuple(values.shape)}; expected {expected}"
                )
            )
        if not values.is_floating_point():
            raise PluginError(
                self._fault(
                    f"returned {values.dtype}; expected floating point, {expected}"
                )
            )
        if logps.requires_grad and not values.requires_grad:
            raise PluginError(
                self._fault(
                    f"returned a loss without gradient; expected {expected}, not"
                    " detached"
                )
            )
        if not isinstance(metrics, Mapping):
            raise PluginError(
                self._fault(
                    f"returned {type(metrics).__name__} for its metrics; expected a map"
                    " by name"
                )
            )
        return values, metrics

    def _fault(self, what: str) -> str:
        return f"loss '{self.loss.name}' {what} ({self.where})"

    def reduce(self, values: Tensor, mask: Tensor, step: Step) -> Tensor:
        """(B, T) or (B,) to this microbatch's share of the step's loss, a scalar; mask
        (B, T) bool.

        The shares of all microbatches of all processes add up to the loss of the step,
        so its gradient does not depend on how the batch was cut (but for `microbatch`).
        """
        if values.dim() == 1:
            return values.sum() / step.sequences * step.processes
        # a product with the mask would let NaN in padding through
        kept = values.masked_fill(~mask, 0)
        if self.normalize == "token":
            return kept.sum() / step.tokens.clamp(min=1) * step.processes
        per_sequence = kept.sum(dim=-1)
        if self.normalize == "constant":
            per_sequence = per_sequence / self.constant
        else:
            lengths = mask.sum(dim=-1)
            per_sequence = per_sequence / (
                lengths.max() if self.normalize == "microbatch" else lengths
            ).clamp(min=1)
        return per_sequence.sum() / step.sequences * step.processes

    def advantages(
        self,
        rewards: Tensor,
        group_size: int,
        each: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Advantages (N,) of rewards (N,), detached; 0 where the reward is NaN, for
        what nothing could score. `each`: the rewards one by one (N, R), and their
        weights (R,).

        Raises:
            PluginError: the advantage returned another shape. WorkError: it is not
                finite where the reward is, or takes no rewards below 0.
        """
        import torch

        assert self.advantage is not None
        name = (
            f"advantage '{self.advantage.name}' ({place_of(self.advantage.function)})"
        )
        seen: tuple[Tensor, ...] = (rewards.clone(),)
        if self.advantage.by_reward:
            columns, weights = each or (rewards[:, None], rewards.new_ones(1))
            seen = (columns.clone(), weights)
        if self.advantage.nonnegative and (rewards < 0).any():
            raise WorkError(
                f"{name} takes no rewards below 0; got {rewards.nan_to_num(0).min():g}."
                " Leave penalties out, or name another advantage"
            )
        given = self.advantage.function(
            seen[0], group_size, *seen[1:], **self.advantage_options
        )
        if not isinstance(given, torch.Tensor) or given.shape != rewards.shape:
            shape = (
                tuple(given.shape)
                if isinstance(given, torch.Tensor)
                else type(given).__name__
            )
            raise PluginError(
                f"{name} returned {shape}; expected one value per reward, shape"
                f" {tuple(rewards.shape)}"
            )
        unscored = rewards.isnan()
        given = given.detach().to(rewards.dtype).masked_fill(unscored, 0)
        if not given.isfinite().all():
            raise WorkError(
                f"{name} returned {int((~given.isfinite()).sum())} values of"
                f" {len(given)} that are not finite; {int(unscored.sum())} rewards were"
                " NaN (completions that no reward could score)"
            )
        return given


def in_force(
    function: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options a plugin is called with: its defaults, changed by those given."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    }
    return {**defaults, **options}


def _padding_free(config: Any) -> bool:
    return config.padding_free or (
        config.packing and config.packing_strategy != "wrapped"
    )
