"""Supervised fine-tuning with a loss plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from trl import SFTTrainer

from alignkit.train.objective import Step
from alignkit.train.seam import Seam
from alignkit.types import SFTBatch

if TYPE_CHECKING:
    from torch import Tensor


class _Fused:
    """A hook that holds the log-probs of the newest forward pass. It knows nothing of
    the trainer, as a model is copied with its hooks.
    """

    logps: Tensor  # (B, T - 1)
    mask: Tensor  # (B, T - 1) bool

    def __call__(self, model: Any, args: Any, outputs: Any) -> None:
        if "log_probs" in outputs:
            self.logps, self.mask = outputs.log_probs.detach(), outputs.label_mask


class AlignSFTTrainer(Seam, SFTTrainer):
    """TRL's SFTTrainer with an objective. The forward pass is TRL's: the fused head
    builds no (B, T, V) logits.
    """

    method = "sft"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.objective is None:
            # TRL's loss returns no log-probs: those of its forward pass are read
            self._fused = _Fused()
            self.model.register_forward_hook(self._fused)

    def _observe(self) -> dict[str, Any]:
        own = {"loss.loss_type": self.args.loss_type} if self.objective is None else {}
        return super()._observe() | own

    def _opened(self, samples: list[Any]) -> None:
        tokens = torch.stack(
            [(batch["labels"][..., 1:] != -100).sum() for batch in samples]
        ).sum()
        self._counted = tokens, sum(len(batch["labels"]) for batch in samples)

    def _sizes(self, inputs: Any) -> tuple[float, float]:
        labels = inputs["labels"]
        return float((labels[..., 1:] != -100).sum()), float(len(labels))

    def _loss_by_tokens(self) -> bool:
        return self.objective is None or super()._loss_by_tokens()

    def _measure(self, rows: int, mask: Tensor) -> Step:
        return self._total(
            *(self._counted if self.model.training else (mask.sum(), rows)), mask.device
        )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The seam: the plugin's loss on (B, T - 1) log-probs of the labels."""
        if self.objective is None:
            computed = super().compute_loss(
                model, inputs, return_outputs=return_outputs, **kwargs
            )
            self._note("nll", -self._fused.logps, self._fused.mask)
            if not self.model.training:
                self._flush_eval()
            return computed
        if return_outputs:
            raise NotImplementedError(
                "alignkit evaluates the loss only; compute_metrics needs logits"
            )
        inputs = {**inputs, "use_cache": False}
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        outputs = model(**inputs, fused_lm_head=True)
        mask = outputs.label_mask
        entropies = outputs.entropy.detach()
        batch = SFTBatch(logps=outputs.log_probs, mask=mask, entropies=entropies)
        self._note("nll", -outputs.log_probs, mask)
        self._note("entropy", entropies, mask)
        self._note("mean_token_accuracy", outputs.is_top1, mask)
        loss = self._apply(batch, (outputs.log_probs,), mask)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / (
                self._window if self.model.training else 1
            )
        if self.model.training:
            counted = (
                inputs["attention_mask"].sum()
                if "attention_mask" in inputs
                else inputs["position_ids"].numel()
            )
            local = torch.as_tensor(counted, device=mask.device)
            self._total_train_tokens += (
                int(self.accelerator.gather(local).sum()) // self._tp_size
            )
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [
            self._total_train_tokens
        ]
        return loss
