"""Save a model so that it loads back the same everywhere; see that it does."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import MissingError
from alignkit.run import deadlines, writing

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import (
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

log = logging.getLogger(__name__)

# What ends and pads a text belongs to the model; everything else of its
# generation_config.json says how others should draw from it.
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def set_aside_generation(model: PreTrainedModel) -> None:
    """Leave in force of the model's own generation settings the token ids only.

    Transformers would draw rollouts with whatever of them nobody states (min_p,
    no_repeat_ngram_size, suppress_tokens, …). `save` writes them again.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.own_generation_config = own
    model.generation_config = GenerationConfig(**{k: vars(own)[k] for k in _IDS})


def own_generation(model: PreTrainedModel) -> GenerationConfig:
    """The generation settings that the model came with, such that they can be saved.

    Transformers refuses to save what it would not read, such as a temperature without
    `do_sample`.
    """
    from transformers import GenerationConfig

    own = vars(model).get("own_generation_config", model.generation_config)
    own = copy.deepcopy(own)
    for change in ({}, {"do_sample": True}):
        try:
            own.update(**change)
            own.validate(strict=True)
        except ValueError as error:
            log.warning("generation_config.json of the model: %s", error)
        else:
            return own
    log.warning("the model is saved with its token ids only, as it could not else be")
    return GenerationConfig(**{name: vars(own)[name] for name in _IDS})


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write a whole model that transformers and vLLM load; it appears under its name
    only when complete.

    A LoRA model is written merged, with the adapter alone beside it in `adapter/` where
    it fits the base (see `models.add_lora`).
    """

    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():  # of a process that was killed while saving
        shutil.rmtree(partial)
    try:
        with deadlines.phase("save"), writing(folder):
            _save(model, tokenizer, partial)
            partial.rename(folder)
    except MissingError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, partial: Path
) -> None:
    from peft import PeftModel

    if isinstance(model, PeftModel):
        adapter = partial / "adapter"
        # TRL keeps the reference's adapter beside the trained one
        model.save_pretrained(adapter, selected_adapters=[model.active_adapter])
        whole = _merged(model, adapter)
        if not fits_base(model):
            log.warning(
                "no adapter is saved: its start (init_lora_weights) changed the base"
                " model, so it would be another model on the base as it was"
            )
            shutil.rmtree(adapter)
        model = whole
    write(model, tokenizer, partial)


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    **given: Any,
) -> None:
    """Model, generation settings and tokenizer as they are saved, into a folder; what
    is `given` goes to transformers.
    """
    live = model.generation_config
    model.generation_config = own_generation(model)
    try:
        model.save_pretrained(folder, **given)
    finally:
        model.generation_config = live
    tokenizer.save_pretrained(folder)


def fits_base(model: PeftModel) -> bool:
    """Whether the adapter belongs on the base as it is on disk."""
    return not vars(model).get("base_changed", False)


def _merged(model: PeftModel, adapter: Path) -> PreTrainedModel:
    """The whole model with its adapter merged, while the one in training keeps its own.

    Over quantized weights the adapter is merged into the weights as they were before,
    as QLoRA does.
    """
    if not hasattr(model.config, "quantization_config"):
        whole = copy.deepcopy(model)
        _untie_adapted(whole)
        return whole.merge_and_unload()
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = model.active_peft_config
    whole = AutoModelForCausalLM.from_pretrained(
        base.base_model_name_or_path,
        trust_remote_code=False,
        revision=base.revision or "main",
        dtype=model.dtype,
    )
    set_aside_generation(whole)
    return PeftModel.from_pretrained(whole, adapter).merge_and_unload()


def _untie_adapted(model: PeftModel) -> None:
    """Where an adapter lies on one end of a tied embedding, the ends become two: merged
    into one they would both change.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    base = model.get_base_model()
    ends = base.get_input_embeddings(), base.get_output_embeddings()
    if not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    first, last = (
        end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends
    )
    if first.weight is last.weight:
        last.weight = nn.Parameter(last.weight.detach().clone())
        base.config.get_text_config().tie_word_embeddings = False
        base.config.tie_word_embeddings = False
