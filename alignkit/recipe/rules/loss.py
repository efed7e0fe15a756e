"""Losses, advantages and the reference model: what each can be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.errors import PluginError
from alignkit.recipe.rules.batches import batches
from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import sampling, setting
from alignkit.recipe.schema import DPO, GRPO, SFT, ExpertIteration, Policy, Trained
from alignkit.types import Loss

# Only the chosen-rejected difference of rewards has an f-divergence (TRL's DPOTrainer).
F_DIVERGENCE_LOSSES = frozenset(
    ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
)

_SORTS = "sorts the pairs, so weights would not fit them"
UNWEIGHTED_LOSSES = {
    "aot": _SORTS,
    "aot_unpaired": _SORTS,
    "hinge": "has no gradient beside weights: TRL changes its values in place",
    "sft": "cannot be weighted: TRL changes its values in place",
}


def _plugin(config: Trained, facts: Facts) -> Loss | None:
    """The loss plugin; None for TRL's own loss, or where it is unknown."""
    if config.loss is None or config.loss.name == "trl" or facts.registry is None:
        return None
    try:
        loss: Loss = facts.registry.get("loss", config.loss.name).value
    except PluginError:  # reported where plugins are looked up
        return None
    return loss


def _normalize(config: Trained, loss: Loss) -> str | None:
    stated = config.loss.normalize if config.loss is not None else None
    return stated or next(iter(loss.normalize), None)


def _stock_types(config: Trained) -> tuple[str, ...]:
    """The `loss_type`s of TRL's own loss; () beside a plugin."""
    if config.loss is not None and config.loss.name != "trl":
        return ()
    stated = config.loss.options.get("loss_type") if config.loss is not None else None
    types = stated or setting(config, "loss_type")
    return (types,) if isinstance(types, str) else tuple(types)


def constant_without_use(config: Trained, facts: Facts) -> Iterator[Problem]:
    """The divisor belongs to one normalisation."""
    loss = config.loss
    if loss is not None and loss.constant is not None and loss.normalize != "constant":
        yield ("loss", "constant"), "is read only with normalize: constant"


def method_of_loss(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A loss says which methods it is for."""
    loss = _plugin(config, facts)
    method = "sft" if config.method == "expert_iteration" else config.method
    if loss is not None and method not in loss.methods:
        text = f"loss '{loss.name}' is for {', '.join(loss.methods)}, not for {config.method}"
        yield ("loss", "name"), text


def normalization_of_loss(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A loss says how its values can be normalised."""
    loss = _plugin(config, facts)
    stated = config.loss.normalize if config.loss is not None else None
    if loss is None or stated in (None, *loss.normalize):
        return
    takes = (
        f"expected one of {', '.join(loss.normalize)}"
        if loss.normalize
        else "it takes none"
    )
    text = f"loss '{loss.name}' cannot be normalised by {stated}; {takes}"
    yield ("loss", "normalize"), text


def liger_beside_plugin(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Liger goes around the seam in which a plugin is applied."""
    if config.loss is None or config.loss.name == "trl":
        return
    if setting(config, "use_liger_kernel"):
        text = (
            "Liger replaces parts of the forward pass on which plugin losses were never "
            "proven, and TRL deprecates it; leave it out, or say loss: {name: trl}"
        )
        yield ("train", "use_liger_kernel"), text


@of(SFT, ExpertIteration)
def rows_that_are_sequences(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Packing joins many sequences into one row, of which only tokens can be counted."""
    loss = _plugin(config, facts)
    if loss is None:
        return
    normalize = _normalize(config, loss)
    joined = setting(config, "padding_free") or (
        setting(config, "packing") and setting(config, "packing_strategy") != "wrapped"
    )
    if joined and normalize != "token":
        name = "padding_free" if setting(config, "padding_free") else "packing"
        text = (
            f"joins many sequences into one row, but loss.normalize: {normalize} needs rows "
            "that are sequences; use normalize: token, or packing_strategy: wrapped"
        )
        yield ("train", name), text


@of(Policy)
def tokens_of_the_step(config: Policy, facts: Facts) -> Iterator[Problem]:
    """`token` divides by what is known only once every response of the step is there."""
    loss, b = _plugin(config, facts), batches(config)
    if loss is None or _normalize(config, loss) != "token" or b.generation % b.passes:
        return
    slices = b.generation // b.passes
    if slices * b.iterations % b.accumulation:
        text = (
            f"token needs all responses of an optimizer step at its start, but with "
            f"{slices} steps_per_generation x {b.iterations} num_iterations some of its "
            f"{b.accumulation} microbatches are generated later; make that product a "
            "multiple of train.gradient_accumulation_steps"
        )
        yield ("loss", "normalize"), text


@of(GRPO)
def values_per_sequence(config: GRPO, facts: Facts) -> Iterator[Problem]:
    """What TRL adds per token has no place in a loss per sequence."""
    loss = _plugin(config, facts)
    if loss is None or loss.normalize:
        return
    one = f"loss '{loss.name}' returns one value per sequence"
    if beta := setting(config, "beta"):
        text = (
            f"{beta} adds a KL term per token, but {one}; set it to 0, or use method "
        )
        yield ("train", "beta"), text + "rloo, whose KL is in the reward"
    mode = setting(config, "vllm_importance_sampling_mode")
    corrected = setting(config, "vllm_importance_sampling_correction")
    if config.generation.engine == "vllm" and corrected and mode.startswith("token"):
        text = (
            f"{mode} weighs tokens, but {one}; use sequence_mask or sequence_truncate"
        )
        yield ("train", "vllm_importance_sampling_mode"), text


@of(GRPO)
def importance_weights(config: GRPO, facts: Facts) -> Iterator[Problem]:
    """The bounds of vLLM's importance weights."""
    if config.generation.engine == "transformers":
        return
    bound = "vllm_importance_sampling_clip_"
    low, high = (setting(config, bound + end) for end in ("min", "max"))
    if low is not None and high is not None and low >= high:
        yield ("train", bound + "min"), f"{low} must be less than {bound}max ({high})"
    mode = setting(config, "vllm_importance_sampling_mode")
    corrected = setting(config, "vllm_importance_sampling_correction")
    if corrected and mode.endswith("truncate") and low is None and high is None:
        text = f"{mode} needs {bound}min or {bound}max"
        yield ("train", "vllm_importance_sampling_mode"), text
    if "vespo" in _stock_types(config) and corrected and not mode.startswith("token"):
        text = f"loss_type vespo needs token_truncate or token_mask; given {mode}"
        yield ("train", "vllm_importance_sampling_mode"), text


@of(Policy)
def reference_needed(config: Policy, facts: Facts) -> Iterator[Problem]:
    """Without a KL there is no reference model, and no log-probs of it."""
    loss = _plugin(config, facts)
    if loss is not None and loss.reference == "needed" and not setting(config, "beta"):
        text = (
            f"0 loads no reference model, whose log-probs loss '{loss.name}' needs; say"
            " a number above 0"
        )
        yield ("train", "beta"), text


@of(GRPO)
def importance_of_the_same(config: GRPO, facts: Facts) -> Iterator[Problem]:
    """TRL's ratio sets the whole distribution's log-probs against those of the one that
    vLLM drew from: cut, a sequence's weight is the mass that was left to the power of
    its length.
    """
    name = "vllm_importance_sampling_correction"
    if config.generation.engine == "transformers" or not setting(config, name):
        return
    unchanged = {"top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    for option, value in {**unchanged, "min_new_tokens": 0}.items():
        stated = sampling(config, option)
        if stated != value:
            text = (
                f"weighs nearly all rollouts by 0 beside generation.{option} {stated}:"
                " it compares log-probs of the whole distribution with those of the one"
                " that was drawn from. Leave one of the two out"
            )
            yield ("train", name), text


def stock_loss_alone(config: Trained, facts: Facts) -> Iterator[Problem]:
    """TRL's own loss normalises by its `loss_type`."""
    if config.loss is None or config.loss.name != "trl":
        return
    for key in ("normalize", "constant"):
        if getattr(config.loss, key) is not None:
            text = "is for loss plugins; TRL's own loss normalises by its loss_type"
            yield ("loss", key), f"{text} ({key}: ~ takes it back)"


@of(DPO)
def preference_losses(config: DPO, facts: Facts) -> Iterator[Problem]:
    """What TRL's preference losses can be combined with."""
    types = _stock_types(config)
    if not types:
        return
    weights, divergence = (
        setting(config, n) for n in ("loss_weights", "f_divergence_type")
    )
    if weights is not None and len(weights) != len(types):
        text = f"{len(weights)} weights for {len(types)} losses ({', '.join(types)})"
        yield ("train", "loss_weights"), text
    unfit = [t for t in types if t not in F_DIVERGENCE_LOSSES]
    if divergence != "reverse_kl" and unfit:
        text = f"loss_type {', '.join(unfit)} has reverse_kl only; given {divergence}"
        yield ("train", "f_divergence_type"), text
    if setting(config, "use_weighting"):
        for name in types:
            if name in UNWEIGHTED_LOSSES:
                text = f"loss_type {name} {UNWEIGHTED_LOSSES[name]}"
                yield ("train", "use_weighting"), text
    if "ipo" in types and setting(config, "beta") == 0:
        yield ("train", "beta"), "loss_type ipo divides by it; expected more than 0"
    smoothing = setting(config, "label_smoothing")
    if "exo_pair" in types and smoothing == 0:
        text = "loss_type exo_pair needs a value above 0, such as 1e-3"
        yield ("train", "label_smoothing"), text
    if "robust" in types and not 0 <= smoothing < 0.5:
        text = f"loss_type robust needs a value from 0 to below 0.5; given {smoothing}"
        yield ("train", "label_smoothing"), text


@of(DPO, Policy)
def reference_that_follows(config: Trained, facts: Facts) -> Iterator[Problem]:
    """`sync_ref_model` moves a reference model that must be there, on its own."""
    if not setting(config, "sync_ref_model"):
        return
    key = ("train", "sync_ref_model")
    if config.model.lora is not None:
        text = "with LoRA the reference is the model without its adapter: nothing can follow"
        yield key, text
    if config.method == "dpo":
        if setting(config, "precompute_ref_log_probs"):
            yield key, "precompute_ref_log_probs needs a reference that stays as it is"
    elif setting(config, "beta") == 0:
        yield key, "train.beta is 0, so there is no reference model"


RULES = (
    constant_without_use,
    method_of_loss,
    normalization_of_loss,
    liger_beside_plugin,
    rows_that_are_sequences,
    tokens_of_the_step,
    values_per_sequence,
    importance_weights,
    importance_of_the_same,
    reference_needed,
    stock_loss_alone,
    preference_losses,
    reference_that_follows,
)
