"""The model: where it comes from, how it is held, what it must have."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import sampling, setting
from alignkit.recipe.schema import SFT, ExpertIteration, Policy, Sampled, Trained


def one_source(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A model is loaded or made."""
    model = config.model
    if (model.path is None) == (model.build is None):
        stated = "both are given" if model.path is not None else "neither is given"
        yield ("model",), f"needs either path or build; {stated}"


def even_heads(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Rotary positions turn pairs of numbers."""
    build = config.model.build
    if build is not None and build.hidden_size % (2 * build.heads):
        text = f"{build.hidden_size} is not divisible by 2 x heads ({build.heads}); "
        yield ("model", "build", "hidden_size"), text + "each head needs an even size"


def quantized(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Quantized weights are frozen, and vLLM cannot take them over."""
    if not config.model.quantize:
        return
    key = ("model", "quantize")
    if not config.model.lora:
        yield key, "quantized weights cannot be trained; add model.lora (QLoRA)"
    if isinstance(config, Policy) and config.generation.engine != "transformers":
        text = "vLLM cannot take over weights in training that are quantized; say "
        yield key, text + "generation.engine: transformers"


def experts(config: Trained, facts: Facts) -> Iterator[Problem]:
    """The auxiliary loss balances experts."""
    stated = config.train.get("router_aux_loss_coef")
    if stated and facts.model is not None and "output_router_logits" not in facts.model:
        text = "the model is no mixture of experts that returns its router logits"
        yield ("train", "router_aux_loss_coef"), text


def padding_token(config: Trained, facts: Facts) -> Iterator[Problem]:
    """It is one of the tokenizer's."""
    token = config.train.get("pad_token")
    if token is not None and facts.tokens is not None and token not in facts.tokens:
        yield ("train", "pad_token"), f"{token!r} is no token of the model's tokenizer"


def padding_multiple(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A number, or TRL's own choice."""
    value = config.train.get("pad_to_multiple_of")
    if isinstance(value, str) and value not in ("auto", "none") and not value.isdigit():
        text = f"given {value!r}, expected a whole number or auto"
        yield ("train", "pad_to_multiple_of"), text


@of(Sampled)
def room_for_responses(config: Sampled, facts: Facts) -> Iterator[Problem]:
    """Prompt and response share the model's positions."""
    longest = sampling(config, "max_new_tokens")
    context = (
        None if facts.model is None else facts.model.get("max_position_embeddings")
    )
    if context is not None and longest >= context:
        text = (
            f"{longest} leaves no room for a prompt: the model has {context} positions"
        )
        yield ("generation", "max_new_tokens"), text


@of(SFT, ExpertIteration)
def packed_rows(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Rows that are joined are cut to one length."""
    limit = setting(config, "max_length")
    packing = setting(config, "packing")
    validated = setting(config, "eval_strategy") != "no" and setting(
        config, "eval_packing"
    )
    for name in ("packing", "eval_packing"):
        if limit is None and {"packing": packing, "eval_packing": validated}[name]:
            yield ("train", name), "needs train.max_length, which is null"
    if setting(config, "padding_free") and not packing and limit is not None:
        text = "without packing TRL wants max_length: null, as it cannot cut rows"
        yield ("train", "padding_free"), text


RULES = (
    one_source,
    even_heads,
    quantized,
    experts,
    padding_token,
    padding_multiple,
    room_for_responses,
    packed_rows,
)
