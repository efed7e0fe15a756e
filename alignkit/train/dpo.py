"""Preference optimisation with a loss plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from trl import DPOTrainer

from alignkit.train.objective import Step
from alignkit.train.seam import Seam
from alignkit.types import PreferenceBatch

if TYPE_CHECKING:
    from torch import Tensor

_NOT_FOR_THE_MODEL = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class AlignDPOTrainer(Seam, DPOTrainer):
    """TRL's DPOTrainer with an objective; the reference log-probs are computed by TRL."""

    method = "dpo"

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Rows that are tokenised already, as those of every method are, stay so."""
        if "prompt_ids" in dataset.column_names:
            return dataset
        return super()._prepare_dataset(dataset, *args, **kwargs)

    def _observe(self) -> dict[str, Any]:
        own = (
            {"loss.loss_type": list(self.loss_types), "train.beta": self.beta}
            if self.objective is None
            else {}
        )
        return super()._observe() | own

    def _opened(self, samples: list[Any]) -> None:
        self._pairs = sum(len(batch["input_ids"]) // 2 for batch in samples)

    def _sizes(self, inputs: Any) -> tuple[float, float]:
        pairs = len(inputs["input_ids"]) / 2
        return float(inputs["completion_mask"].sum()), pairs

    def _loss_by_tokens(self) -> bool:
        return False

    def _tokens_count(self) -> bool:
        return False

    def _measure(self, rows: int, mask: Tensor) -> Step:
        return self._total(
            mask.sum(), self._pairs if self.model.training else rows, mask.device
        )

    def _compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False
    ) -> Any:
        """The seam: the plugin's loss on response log-probs, (B,) pairs; rows are
        [chosen; rejected].
        """
        if self.objective is None:
            return super()._compute_loss(model, inputs, return_outputs)
        if return_outputs:
            raise NotImplementedError(
                "alignkit evaluates the loss only; compute_metrics needs logits"
            )
        model_inputs = {
            key: value for key, value in inputs.items() if key not in _NOT_FOR_THE_MODEL
        }
        model_inputs["use_cache"] = False
        if self.aux_loss_enabled:
            model_inputs["output_router_logits"] = True
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(**model_inputs, labels=labels, fused_lm_head=True)
        tokens = labels[:, 1:] != -100
        each, masks = outputs.log_probs.chunk(2), tokens.chunk(2)
        chosen, rejected = (logps.sum(dim=1) for logps in each)
        if self.precompute_ref_logps:
            ref_chosen, ref_rejected = (
                inputs["ref_chosen_logps"],
                inputs["ref_rejected_logps"],
            )
        else:
            reference = self.model if self.ref_model is None else self.ref_model
            ref_chosen, ref_rejected = self.compute_ref_log_probs(reference, inputs)
        batch = PreferenceBatch(
            chosen,
            rejected,
            ref_chosen,
            ref_rejected,
            chosen_token_logps=each[0],
            chosen_mask=masks[0],
            rejected_token_logps=each[1],
            rejected_mask=masks[1],
        )
        pairs = torch.ones_like(chosen, dtype=torch.bool)
        self._note("entropy", outputs.entropy.detach()[:, -tokens.shape[1] :], tokens)
        self._note("nll", -outputs.log_probs, tokens)
        self._note("logps/chosen", chosen, pairs)
        self._note("logps/rejected", rejected, pairs)
        # CS336's validation accuracy
        self._note("logps/accuracy", (chosen > rejected).float(), pairs)
        loss = self._apply(batch, (chosen, rejected), pairs)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / (
                self._window if self.model.training else 1
            )
        if self.model.training:
            counted = self.accelerator.gather(inputs["attention_mask"].sum()).sum()
            self._total_train_tokens += int(counted) // self._tp_size
        self._metrics["train" if self.model.training else "eval"]["num_tokens"] = [
            self._total_train_tokens
        ]
        return loss
