"""Models and tokenizers: build a tiny one, load one, save one so that it loads back the
same everywhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit.errors import InputError, asks_for, first_line, listing, nearest
from alignkit.machine.gpus import cuda_available
from alignkit.models.saving import save, set_aside_generation
from alignkit.models.shape import context
from alignkit.models.source import base_of, explained, resolve
from alignkit.models.threads import settle_threads
from alignkit.models.tiny import (
    CHAT_TEMPLATE,
    END,
    PAD,
    build,
    build_tokenizer,
)
from alignkit.recipe.trl import built
from alignkit.terminal.libraries import no_bars

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import (
        BitsAndBytesConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

__all__ = [
    "CHAT_TEMPLATE",
    "END",
    "PAD",
    "add_lora",
    "build",
    "build_tokenizer",
    "describe",
    "load",
    "load_tokenizer",
    "resolve",
    "save",
]

log = logging.getLogger(__name__)

DTYPES = ("auto", "bfloat16", "float16", "float32")


def load(
    path: str,
    *,
    dtype: str = "auto",
    attention: str = "auto",
    revision: str | None = None,
    lora: Mapping[str, object] | None = None,
    quantize: Mapping[str, object] | None = None,
    for_training: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer from a Hub id, a folder, or a run
    folder (its `model/`).

    A folder that holds only a PEFT adapter is loaded onto its base model and merged.
    `lora` (PEFT's own LoraConfig names) puts a fresh adapter on top; `quantize` (those
    of transformers' BitsAndBytesConfig) holds the weights under it in 4 or 8 bits. For
    training the model stays on the CPU, where the trainer takes it from; otherwise it
    goes to the GPU if there is one, in evaluation mode.

    Raises InputError for a path or folder that is no model, MissingError for what
    cannot be fetched here.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import is_flash_attn_2_available

    source = resolve(path, revision)
    no_bars()
    cuda = cuda_available()
    if dtype not in DTYPES:
        raise InputError(f"model.dtype: {dtype!r} is unknown; {nearest(dtype, DTYPES)}")
    if dtype == "auto":
        dtype = "bfloat16" if cuda else "float32"
    if attention == "auto":
        flash = cuda and dtype != "float32" and is_flash_attn_2_available()
        # "": what transformers chooses, sdpa where it can
        attention = "flash_attention_2" if flash else ""
    elif attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise asks_for("flash-attn", "flash", "attention: flash_attention_2")

    base, base_revision = base_of(source, revision)
    with explained(base, "the model"):
        model, info = AutoModelForCausalLM.from_pretrained(
            base,
            trust_remote_code=False,
            revision=base_revision or "main",
            dtype=getattr(torch, dtype),
            attn_implementation=attention or None,
            device_map="cuda" if cuda and not for_training else None,
            output_loading_info=True,
            quantization_config=None if quantize is None else quantization(quantize),
        )
    if info["missing_keys"]:
        keys = listing(sorted(info["missing_keys"]), 5)
        raise InputError(
            f"{base}: the weights lack {len(info['missing_keys'])} of the model's"
            f" tensors: {keys}"
        )
    if base != source:
        from peft import PeftModel

        with explained(source, "the adapter"):
            model = PeftModel.from_pretrained(model, source).merge_and_unload()
    with explained(source, "its generation_config.json"):
        set_aside_generation(model)
    tokenizer = load_tokenizer(path, revision)
    settle_threads(model)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens, the model only {rows}:"
            " not a pair"
        )
    if lora is not None:
        model = add_lora(model, lora)
    return (model if for_training else model.eval()), tokenizer


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `path` (a folder may hold a tokenizer alone), with an end and a
    padding token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    alone = Path(path).expanduser()
    bare = (alone / "tokenizer_config.json").is_file() and revision is None
    source = str(alone) if bare else resolve(path, revision)
    if not (Path(source) / "tokenizer_config.json").is_file():
        source, revision = base_of(source, revision)
    with explained(source, "the tokenizer"):
        saved_class = get_tokenizer_config(source, revision=revision or "main").get(
            "tokenizer_class"
        )
        # AutoTokenizer would put the architecture's usual class in place of a generic
        # one (qwen2, phi3, …).
        generic = saved_class in ("PreTrainedTokenizerFast", "TokenizersBackend")
        loader = PreTrainedTokenizerFast if generic else AutoTokenizer
        tokenizer = loader.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )
        # settings of odd types are met where they are first used
        tokenizer.decode(tokenizer("1")["input_ids"])
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        tokenizer.convert_ids_to_tokens(sorted(special))
    if tokenizer.eos_token is None:
        raise InputError(
            f"{path}: the tokenizer names no end token (eos_token), so no answer could"
            " ever end"
        )
    if tokenizer.pad_token is None:
        spare = [
            t
            for t in tokenizer.get_added_vocab()
            if re.search(r"\bpad|_pad|reserved", t, re.I)
        ]
        tokenizer.pad_token = spare[0] if spare else tokenizer.eos_token
        log.warning(
            "%s: the tokenizer has no padding token; %r is used",
            path,
            tokenizer.pad_token,
        )
    if tokenizer.pad_token == tokenizer.eos_token:
        # Harmless here: batches and losses are masked by length, never by comparing
        # with the padding token.
        log.info("%s: padding and end are one token (%r)", path, tokenizer.eos_token)
    return tokenizer


def add_lora(model: PreTrainedModel, settings: Mapping[str, object]) -> PeftModel:
    """`model` with a fresh LoRA adapter; `settings` are the fields of PEFT's
    LoraConfig, alpha being lora_alpha.
    """
    from peft import LoraConfig, get_peft_model

    named = {
        "lora_alpha" if key == "alpha" else key: value
        for key, value in settings.items()
    }
    known = LoraConfig.__dataclass_fields__
    unknown = [
        f"model.lora.{key} is unknown to PEFT; {nearest(key, known)}"
        for key in named
        if key not in known
    ]
    if unknown:
        raise InputError(*unknown)
    # PEFT's own start leaves the base alone; PiSSA, OLoRA and others take their first
    # weights out of it
    usual = named.get("init_lora_weights", True) is True
    before = 0.0 if usual else _checksum(model)
    try:
        adapted = get_peft_model(
            model, LoraConfig(**{"task_type": "CAUSAL_LM", **built(LoraConfig, named)})
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"model.lora: {first_line(error)}") from error
    after = 0.0 if usual else _checksum(adapted.get_base_model())
    adapted.base_changed = after != before
    return adapted


def _checksum(model: PreTrainedModel) -> float:
    """A number that changes with the frozen weights; 0 where they are not loaded."""
    weights = [
        weight
        for name, weight in model.named_parameters()
        if "lora_" not in name and weight.is_floating_point() and not weight.is_meta
    ]
    return sum(float(weight.detach().double().abs().sum()) for weight in weights)


def quantization(settings: Mapping[str, object]) -> BitsAndBytesConfig:
    """Transformers' BitsAndBytesConfig; bitsandbytes must be installed."""
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise asks_for("bitsandbytes", "quantize", "model.quantize")
    try:
        return BitsAndBytesConfig(**settings)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"model.quantize: {first_line(error)}") from error


def describe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, object]:
    """What the manifest records of a model: as it is, not as it was asked for."""
    import torch

    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "architecture": (model.config.architectures or [type(model).__name__])[0],
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "context": context(model.config),
        "vocabulary": len(tokenizer),
        "eos": tokenizer.eos_token,
        "pad": tokenizer.pad_token,
    }
