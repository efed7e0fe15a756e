"""What a recipe may well mean, and what goes wrong for most who state it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from alignkit.recipe.rules.rule import Facts, Problem, Rule, of
from alignkit.recipe.rules.settings import sampling, setting
from alignkit.recipe.schema import Policy, Trained

MOVED = 0.5  # of the weights: where fewer move in a step, most updates are lost
_USUAL_STD = 0.02  # of weights, where the model's configuration names none
_WEIGHTS = "{:.0%} of bfloat16 weights are moved by an update of the learning rate"


def lost_updates(config: Trained, facts: Facts) -> Iterator[Problem]:
    """An update of less than half the step between two bfloat16 numbers is rounded to
    nothing.

    Adam's and Lion's updates are at most about the learning rate, whatever the
    gradient. Adapters are trained in float32.
    """
    rate = setting(config, "learning_rate")
    optimizer = str(setting(config, "optim"))
    bounded = "adam" in optimizer or "lion" in optimizer
    halved = config.model.dtype == "bfloat16" or (
        config.model.dtype == "auto" and bool(facts.gpus)
    )
    if not halved or config.model.lora or not bounded or not rate:
        return
    if "anyprecision" in optimizer:  # keeps what rounding takes away
        return
    std = (facts.model or {}).get("initializer_range") or _USUAL_STD
    share = moved(rate, std)
    if share < MOVED:
        text = (
            f"at train.learning_rate {rate:g} about {_WEIGHTS.format(share)}; the rest"
            " stay as they are. Say model.dtype: float32 (with train.bf16: true the"
            " arithmetic stays fast; weights, gradients and the optimizer take twice the"
            " memory), or train an adapter with model.lora"
        )
        yield ("model", "dtype"), text


def moved(update: float, std: float) -> float:
    """The share of normal weights of this deviation that bfloat16 can move by an update.

    Between 2^e and 2^(e+1) two bfloat16 numbers lie 2^(e-7) apart, and an update of half
    of that is the first that is not rounded away.
    """
    largest = 2.0 ** (math.floor(math.log2(update * 2**8)) + 1)
    return 2 * statistics.NormalDist(0, std).cdf(largest) - 1


@of(Policy)
def truncated_policy(config: Policy, facts: Facts) -> Iterator[Problem]:
    """Rollouts drawn from a part of the policy are weighed by the log-probs of all of
    it.
    """
    cuts = [
        ("top_p", sampling(config, "top_p") < 1),
        ("top_k", sampling(config, "top_k") > 0),
        ("min_p", sampling(config, "min_p") > 0),
        ("repetition_penalty", sampling(config, "repetition_penalty") != 1),
    ]
    for name, cut in cuts:
        if cut:
            text = (
                "draws rollouts from another distribution than the one whose log-probs"
                " the loss weighs, so its gradient is biased: tokens that are never"
                " drawn keep their mass. Leave it out, or say it in evals only"
            )
            yield ("generation", name), text


def quantized_on_cpu(config: Trained, facts: Facts) -> Iterator[Problem]:
    """Four-bit arithmetic without a GPU takes hours for an eval."""
    if config.model.quantize is None or facts.gpus != 0:
        return
    for name, entry in config.evals.items():
        if entry.before:
            text = (
                "a quantised model is evaluated without a GPU: it will take very long"
            )
            yield ("evals", name, "before"), text


WARNINGS: tuple[Rule, ...] = (lost_updates, truncated_policy, quantized_on_cpu)
