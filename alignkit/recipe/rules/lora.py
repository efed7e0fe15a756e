"""LoRA: what PEFT, TRL and the saving of the merged model can do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignkit.errors import nearest
from alignkit.recipe.rules.rule import Facts, Problem
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.schema import Trained

EMBEDDING, HEAD = "embed_tokens", "lm_head"
# Fields that PEFT's class takes, and that cannot work from a recipe.
IMPOSSIBLE = {
    "alora_invocation_tokens": "PEFT cannot merge such an adapter, so no model could be saved",
    "arrow_config": "it routes among adapters that are trained already; a recipe trains one",
    "megatron_config": "align trains without Megatron",
    "megatron_core": "align trains without Megatron",
    "monteclora_config": "PEFT cannot copy such an adapter, so no model could be saved",
    "runtime_config": "it is for loading a trained adapter",
}
# Initialisations that PEFT leaves to a pass over data before the training.
FROM_DATA = ("corda", "eva", "lora_ga")


def _lora(config: Trained) -> Mapping[str, Any]:
    return config.model.lora or {}


def impossible_fields(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Refused by name, with the reason."""
    for name, value in _lora(config).items():
        if name in IMPOSSIBLE and value is not None:
            yield ("model", "lora", name), f"has no use here: {IMPOSSIBLE[name]}"


def ranks(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A rank is a positive number of rows."""
    lora = _lora(config)
    stated: dict[tuple[str, ...], Any] = {("r",): lora.get("r")}
    for module, rank in (lora.get("rank_pattern") or {}).items():
        stated["rank_pattern", module] = rank
    for key, rank in stated.items():
        if isinstance(rank, int) and rank < 1:
            yield ("model", "lora", *key), f"given {rank}, expected at least 1"


def dropout(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A share; below 0 PEFT takes it for none."""
    share = _lora(config).get("lora_dropout", 0)
    if not 0 <= share <= 1:
        yield ("model", "lora", "lora_dropout"), f"given {share}, expected 0 to 1"


def patterns(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Regular expressions must be some."""
    lora = _lora(config)
    written: list[tuple[tuple[str, ...], str]] = [
        ((name, key), key)
        for name in ("rank_pattern", "alpha_pattern")
        for key in lora.get(name) or {}
    ]
    for name in ("target_modules", "exclude_modules"):
        if isinstance(lora.get(name), str):
            written.append(((name,), lora[name]))
    for key, pattern in written:
        try:
            re.compile(pattern)
        except re.error as error:
            yield (
                ("model", "lora", *key),
                f"{pattern!r} is no regular expression: {error}",
            )


def layers(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Layers are chosen beside a list of modules."""
    lora = _lora(config)
    for name in ("layers_to_transform", "layers_pattern"):
        if isinstance(lora.get("target_modules"), str) and lora.get(name):
            text = (
                "target_modules is one text, which chooses layers itself; give a list"
            )
            yield ("model", "lora", name), text
    if lora.get("layers_pattern") and lora.get("layers_to_transform") is None:
        yield ("model", "lora", "layers_pattern"), "is read beside layers_to_transform"


def bias(config: Trained, facts: Facts) -> Iterator[Problem]:
    """`lora_bias` goes with plain LoRA only."""
    lora = _lora(config)
    if not lora.get("lora_bias"):
        return
    if lora.get("use_dora"):
        yield ("model", "lora", "lora_bias"), "PEFT has it without use_dora only"
    if not isinstance(start := lora.get("init_lora_weights", True), bool):
        text = f"PEFT has it with init_lora_weights true or false only; given {start}"
        yield ("model", "lora", "lora_bias"), text


def second_adapter(config: Trained, facts: Facts) -> Iterator[Problem]:
    """TRL adds a frozen copy of the adapter as the reference."""
    lora = _lora(config)
    copied = config.method in ("rloo", "dpo")
    copied = copied or (config.method == "grpo" and setting(config, "beta") != 0)
    if copied and lora.get("bias", "none") != "none":
        text = "the reference is a second adapter, and PEFT trains biases with one only"
        yield ("model", "lora", "bias"), text


def head_in_full_precision(config: Trained, facts: Facts) -> Iterator[Problem]:
    """TRL looks for the head where it is without an adapter."""
    if (
        config.method == "grpo"
        and _lora(config)
        and setting(config, "cast_lm_head_to_fp32")
    ):
        yield ("train", "cast_lm_head_to_fp32"), "TRL cannot do it to a model with LoRA"


def initial_weights(config: Trained, facts: Facts) -> Iterator[Problem]:
    """How the adapter starts."""
    lora, key = _lora(config), ("model", "lora", "init_lora_weights")
    start = lora.get("init_lora_weights", True)
    if start in FROM_DATA:
        text = f"{start} needs a pass over data before the training, which align does not make"
        yield key, text
    if start == "loftq":
        text = "loftq quantizes weights that are loaded whole; use model.quantize with true"
        yield key, text
    if start == "orthogonal" and lora.get("r", 8) % 2:
        yield key, f"orthogonal needs an even rank; r is {lora.get('r')}"
    count = str(start).removeprefix("pissa_niter_")
    if count != str(start) and not count.isdigit():
        yield key, f"given {start!r}, expected pissa_niter_ and a number, such as 4"


def head(config: Trained, facts: Facts) -> Iterator[Problem]:
    """TRL multiplies with the head's weights itself, so an adapter there is never trained."""
    lora = _lora(config)
    targets = lora.get("target_modules")
    named = _listed(targets)
    tied = facts.model is not None and facts.model.get("tie_word_embeddings")
    follows = bool(tied and lora.get("ensure_weight_tying") and EMBEDDING in named)
    if HEAD in named or follows or (facts.adapts_head and not named):
        text = "TRL computes log-probabilities with the head's own weights, so an adapter on "
        text += f"{HEAD} would never be trained"
        if follows:
            text += f" ({EMBEDDING} is tied to it, and ensure_weight_tying adapts both)"
        yield ("model", "lora", "target_modules"), text


def trained_tokens(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Single rows of the embedding can be trained where the head is another matrix."""
    lora, key = _lora(config), ("model", "lora", "trainable_token_indices")
    stated = lora.get("trainable_token_indices")
    if stated is None:
        return
    rows = stated if isinstance(stated, Mapping) else {EMBEDDING: stated}
    tied = facts.model is not None and facts.model.get("tie_word_embeddings")
    if any(_is(name, HEAD) for name in rows):
        yield (
            key,
            f"TRL computes log-probabilities with {HEAD} whole; train it by modules_to_save",
        )
    elif tied and any(_is(name, EMBEDDING) for name in rows):
        text = "the model's head is its embedding (tie_word_embeddings), which TRL needs whole"
        yield key, f"{text}; train it by modules_to_save"
    whole = lora.get("modules_to_save") or ()
    for name in rows:
        if any(_is(saved, name) for saved in whole):
            yield (
                key,
                f"{name} is trained whole by modules_to_save; leave one of the two out",
            )
    size = facts.model.get("vocab_size") if facts.model is not None else None
    largest = max((i for indices in rows.values() for i in indices), default=0)
    if size is not None and largest >= size:
        yield key, f"given {largest}, but the model has {size} tokens"


def modules(config: Trained, facts: Facts) -> Iterator[Problem]:
    """What is named must be there: PEFT passes over names that match nothing."""
    lora, names = _lora(config), facts.modules
    if names is None or not lora:
        return
    for field in ("target_modules", "exclude_modules", "modules_to_save"):
        for name in _listed(lora.get(field)):
            if not any(_is(module, name) for module in names):
                text = (
                    f"the model has no module {name!r}; {nearest(name, _ends(names))}"
                )
                yield ("model", "lora", field), text
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in lora.get(field) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", module) for module in names):
                text = (
                    f"matches no module of the model; {nearest(pattern, _ends(names))}"
                )
                yield ("model", "lora", field, pattern), text


def _listed(names: Any) -> list[str]:
    return list(names) if isinstance(names, list) else []


def _is(module: str, name: str) -> bool:
    """Whether a module of this full name is meant by a name or its end."""
    return module == name or module.endswith(f".{name}")


def _ends(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names} - {""})


RULES = (
    impossible_fields,
    ranks,
    dropout,
    patterns,
    layers,
    bias,
    second_adapter,
    head_in_full_precision,
    initial_weights,
    head,
    trained_tokens,
    modules,
)
