"""A tiny model with random weights and its tokenizer, for the quickstart and for tests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError, nearest
from alignkit.models.threads import settle_threads
from alignkit.recipe.schema import Build

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
DIGIT_PIECES = (
    *"0123456789+-*/=?.,:()",
    " ",
    "\n",
    "System:",
    "User:",
    "Assistant:",
    *("<think>", "</think>", "<answer>", "</answer>"),
)
# `generation` marks what TRL trains on when a recipe asks for assistant_only_loss.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message.role | capitalize + ': ' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- message.content + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message.content -}}{%- endif -%}"
    "{{- '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant: ' -}}{%- endif -%}"
)


def build_tokenizer(kind: str, max_length: int = 512) -> Any:
    """A small tokenizer: `digits` (one token per digit, sign, role and tag) or `bytes`
    (any text).
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as vocabularies
    from transformers import PreTrainedTokenizerFast

    specials = {"eos_token": END, "pad_token": PAD}
    if kind == "digits":
        vocabulary = {
            piece: index
            for index, piece in enumerate((PAD, END, UNKNOWN, *DIGIT_PIECES))
        }
        core = Tokenizer(vocabularies.WordLevel(vocabulary, unk_token=UNKNOWN))
        pieces = "|".join(
            re.escape(piece) for piece in sorted(DIGIT_PIECES, key=len, reverse=True)
        )
        core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{pieces}|."), "isolated")
        core.decoder = decoders.Fuse()
        specials["unk_token"] = UNKNOWN
    elif kind == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(
            vocabularies.BPE(
                {c: index for index, c in enumerate((PAD, END, *alphabet))}, []
            )
        )
        core.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=False
        )
        core.decoder = decoders.ByteLevel()
    else:
        raise InputError(
            f"model.build.tokenizer: {kind!r} is unknown;"
            f" {nearest(kind, ('bytes', 'digits'))}"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        **specials,
    )


def build_config(spec: Build, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The architecture of a tiny decoder: Llama's with biases in attention.

    A folder whose configuration says qwen2 is opened by AutoTokenizer (and so by vLLM)
    with Qwen's own tokenizer in place of the saved one.
    """
    from transformers import LlamaConfig

    if spec.hidden_size % spec.heads:
        raise InputError(
            f"model.build: hidden_size {spec.hidden_size} is not divisible by heads"
            f" {spec.heads}"
        )
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        # vLLM's attention on a CPU knows no smaller heads
        head_dim=max(32, spec.hidden_size // spec.heads),
        max_position_embeddings=spec.max_length,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build(spec: Build, seed: int) -> tuple[Any, Any]:
    """A tiny decoder with random weights, and its tokenizer.

    All matrices are drawn from N(0, init_std): the usual 0.02 is too small for so
    narrow a net.
    """
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = build_tokenizer(spec.tokenizer, spec.max_length)
    config = build_config(spec, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, spec.init_std)
    settle_threads(model)
    return model, tokenizer
