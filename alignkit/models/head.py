"""What stands before and behind a model's forward pass in training: positions that
count from the first token of a row, and a head that computes what the model's own does.
"""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether the model's forward pass has `position_ids`."""
    return "position_ids" in inspect.signature(type(model).forward).parameters


def pass_positions(model: PreTrainedModel) -> RemovableHandle:
    """Have a training pass count positions from the first attended token of each row.

    A model with absolute positions would else count the padding before it, and TRL
    passes none. Generation passes its own.
    """

    def add(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        if kwargs.get("fused_lm_head") and mask is not None:
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
            kwargs.setdefault("position_ids", positions)
        return args, kwargs

    return model.register_forward_pre_hook(add, with_kwargs=True)


class OwnHead:
    """Computes what TRL's fused head computes from the model's own logits (B, L, V),
    which take their memory.
    """

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        self.model = model
        self.temperature = temperature
        self.fused = model.forward
        model.forward = types.MethodType(self._forward, model)

    def remove(self) -> None:
        """Put TRL's fused head back."""
        self.model.forward = self.fused

    def _forward(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.pop("fused_lm_head", False):
            return self.fused(*args, **kwargs)
        from trl.trainer.utils import FusedCausalLMOutput

        labels = kwargs.pop("labels")[:, 1:]
        items = kwargs.pop("num_items_in_batch", None)
        outputs = self.fused(*args, **kwargs, fused_lm_head=False)
        logits = outputs.logits[:, :-1].float() / self.temperature
        logps = logits.log_softmax(-1)
        mask = labels != -100

        def own(values: Tensor) -> Tensor:
            return values.masked_fill(~mask, 0)

        chosen = logps.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
        return FusedCausalLMOutput(
            loss=-own(chosen).sum()
            / (mask.sum().clamp(min=1) if items is None else items),
            log_probs=own(chosen),
            entropy=own(-(logps.exp() * logps).sum(-1)),
            log_sum_sq_probs=own((2 * logps).logsumexp(-1)),
            mean_logits=own(logits.mean(-1)),
            is_top1=own(logps.argmax(-1) == labels),
            label_mask=mask,
            aux_loss=outputs.get("aux_loss"),
        )
