"""Proof that a loss does what its definition says, by the real trainers on a tiny
model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from alignkit.conformance import laboratory as tiny
from alignkit.conformance import policy, preference, properties, supervised
from alignkit.conformance.batches import kind_of, objective_of
from alignkit.conformance.check import Check, needed, outcome, picklable
from alignkit.conformance.definition import definition, gap
from alignkit.conformance.twin import twin
from alignkit.train.objective import Objective
from alignkit.types import Loss

# Packing makes one row of many, so it has no sequences to average over: `token` only.
PACKED = tiny.Cut(8, 1, {"packing": True, "max_length": 64})


def check_loss(loss: Loss, laboratory: tiny.Laboratory) -> list[Check]:
    """All checks of a loss with its default options, for every method and normalisation
    it names.
    """
    if missing := needed(loss.function):
        return [Check("loss", loss.name, "options", None, missing)]
    checks = by_itself(loss)
    if loss.like is not None:
        test = functools.partial(twin, loss, laboratory)
        checks.append(outcome("loss", loss.name, "twin", test))
    if loss.depends_on_microbatch:
        text = "declares that it depends on the microbatch"
        return [*checks, Check("loss", loss.name, "cuts", None, text)]
    first, *others = loss.methods
    for normalize in loss.normalize or (None,):
        checks += _trained(loss, first, normalize, laboratory)
    # A second method goes through the same reduction, so one normalisation of it is
    # enough.
    for method in others:
        checks += _trained(loss, method, (loss.normalize or (None,))[0], laboratory)
    return checks


def by_itself(loss: Loss) -> list[Check]:
    """The checks that need no trainer."""
    checks = [
        outcome("loss", loss.name, name, functools.partial(test, loss))
        for name, test in {
            "picklable": lambda loss: picklable(loss.function),
            "dtype": properties.dtype,
            "finite": properties.finite,
            "padding": properties.padding,
            "direction": properties.direction,
            "batch unchanged": properties.purity,
        }.items()
    ]
    own = {
        "sft": supervised.PROPERTIES,
        "policy": policy.PROPERTIES,
        "preference": preference.PROPERTIES,
    }
    for name, check in own[kind_of(loss)].items():
        test = functools.partial(check, loss)
        checks.append(outcome("loss", loss.name, name, test))
    if kind_of(loss) == "policy":
        test = functools.partial(properties.scaling, loss)
        checks.append(outcome("loss", loss.name, "advantages detached", test))
    return checks


def _trained(
    loss: Loss, method: str, normalize: str | None, laboratory: tiny.Laboratory
) -> Iterator[Check]:
    """The loss in the trainer of one method, whole and cut."""
    objective = objective_of(loss, normalize)
    label = " ".join(filter(None, (method, normalize)))

    def result(check: str, cuts: Sequence[tiny.Cut], what: str) -> Check:
        test = functools.partial(_apart, objective, method, cuts, laboratory, what)
        return outcome("loss", loss.name, f"{label}: {check}", test)

    yield result("definition", (tiny.WHOLE,), "the definition")
    if normalize == "microbatch":
        text = "divides by the longest response of the microbatch, so it depends on the"
        yield Check("loss", loss.name, f"{label}: cuts", None, f"{text} cut")
        return
    cuts: tuple[tiny.Cut, ...] = (tiny.HARSH,)
    if method == loss.methods[0] and normalize in (None, *loss.normalize[:1]):
        cuts = tiny.CUTS
    if method == "sft" and normalize == "token":
        cuts = (*cuts, PACKED)
    yield result("cuts", cuts, "the definition in {cut}")


def _apart(
    objective: Objective,
    method: str,
    cuts: Sequence[tiny.Cut],
    laboratory: tiny.Laboratory,
    what: str,
) -> str | None:
    """The first cut in which the trainer's gradient is not that of the definition."""
    expected = definition(objective, method, laboratory)
    for cut in cuts:
        gradients = laboratory.gradients(method, objective, cut)
        if wrong := gap(expected, gradients, what.format(cut=cut)):
            return wrong
    return None
