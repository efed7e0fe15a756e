"""Proof that a loss does what its definition says, by the real trainers on a tiny
model.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignkit.conformance import laboratory as tiny
from alignkit.errors import AlignError
from alignkit.functional import compute_entropy
from alignkit.train.objective import Objective, Step
from alignkit.types import Loss, PolicyBatch, PreferenceBatch, SFTBatch

# of the largest gradient; the trainers' fused head computes in float32
TOLERANCE = 1e-5
CONSTANT = 7.0
# Packing makes one row of many, so it has no sequences to average over: `token` only.
PACKED = tiny.Cut(8, 1, {"packing": True, "max_length": 64})


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. `ok` is None where a plugin declares what would otherwise
    be a fault.
    """

    kind: str
    plugin: str
    check: str
    ok: bool | None
    detail: str = ""


def check_loss(loss: Loss, laboratory: tiny.Laboratory) -> list[Check]:
    """All checks of a loss with its default options, for every method and normalisation
    it names.
    """

    if missing := needed(loss.function):
        return [Check("loss", loss.name, "options", None, missing)]

    def result(check: str, test: Callable[[], str | None]) -> Check:
        return outcome("loss", loss.name, check, test)

    found = [
        result("picklable", lambda: picklable(loss.function)),
        result("dtype", lambda: _dtype(loss)),
        result("finite", lambda: _finite(loss)),
        result("padding", lambda: _padding(loss)),
        result("direction", lambda: _direction(loss)),
        result("batch unchanged", lambda: _unchanged(loss)),
    ]
    if _kind(loss) == "policy":
        found.append(
            result("advantages detached", lambda: _scales_with_advantages(loss))
        )
    if loss.depends_on_microbatch:
        return [
            *found,
            Check(
                "loss",
                loss.name,
                "cuts",
                None,
                "declares that it depends on the microbatch",
            ),
        ]
    for method in loss.methods:
        # The second method goes through the same reduction, so one normalisation of it
        # is enough.
        for normalize in (loss.normalize or (None,))[
            : None if method == loss.methods[0] else 1
        ]:
            objective = Objective(
                loss,
                normalize=normalize,
                constant=CONSTANT if normalize == "constant" else None,
            )
            label = method if normalize is None else f"{method} {normalize}"
            found.append(
                result(
                    f"{label}: definition",
                    functools.partial(_defined, objective, method, laboratory),
                )
            )
            if normalize == "microbatch":
                detail = (
                    "divides by the longest response of the microbatch, so it depends"
                    " on the cut"
                )
                found.append(Check("loss", loss.name, f"{label}: cuts", None, detail))
                continue
            first = method == loss.methods[0] and normalize in (
                None,
                *loss.normalize[:1],
            )
            cuts = tiny.CUTS if first else (tiny.HARSH,)
            if method == "sft" and normalize == "token":
                cuts = (*cuts, PACKED)
            found.append(
                result(
                    f"{label}: cuts",
                    functools.partial(_uncut, objective, method, cuts, laboratory),
                )
            )
    return found


def needed(function: Callable[..., Any]) -> str | None:
    """Why a plugin with options that have no default is not checked."""
    parameters = inspect.signature(function).parameters.values()
    names = [
        p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    return (
        f"not checked: it needs the option {', '.join(names)}; its own tests must do it"
        if names
        else None
    )


def outcome(kind: str, name: str, check: str, test: Callable[[], str | None]) -> Check:
    """`test` returns what is wrong, or None."""
    try:
        wrong = test()
    except AlignError as error:
        wrong = str(error)
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its crash is the result here
        wrong = f"raised {type(error).__name__}: {error}"
    return Check(kind, name, check, wrong is None, wrong or "")


# -- losses by themselves --------------------------------------------------------------


def _kind(loss: Loss) -> str:
    return {"sft": "sft", "dpo": "preference"}.get(loss.methods[0], "policy")


def _batch(
    loss: Loss,
    logps: Tensor,
    mask: Tensor,
    drift: float = 0.3,
    advantages: Tensor | None = None,
) -> Any:
    """A batch of the loss's kind around log-probs (B, T), and the tensor that carries
    the gradient.
    """
    leaf = logps.detach().clone().requires_grad_()
    if _kind(loss) == "sft":
        return SFTBatch(leaf, mask, torch.ones_like(logps)), leaf
    if _kind(loss) == "preference":
        sums = leaf.masked_fill(~mask, 0).sum(1)
        still = sums.detach() + drift
        return PreferenceBatch(sums, sums.flip(0), still, still.flip(0) - drift), leaf
    if advantages is None:
        advantages = torch.linspace(-1.0, 1.0, len(logps)).to(logps)
    others = [
        logps.detach()
        + drift * torch.sin(torch.arange(logps.numel()).view_as(logps) + p)
        for p in (0.0, 2.0)
    ]
    old, reference = (other.to(logps.dtype) for other in others)
    return (
        PolicyBatch(
            leaf,
            old,
            mask,
            advantages,
            advantages.clone(),
            reference,
            torch.ones_like(logps),
        ),
        leaf,
    )


def _logps(
    lengths: tuple[int, ...], dtype: torch.dtype = torch.float64, low: float = -3.0
) -> tuple[Tensor, Tensor]:
    width = max(*lengths, 1)
    values = torch.rand(
        len(lengths),
        width,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    # TRL's log-probs are 0 on padding
    return (values * low).masked_fill(~mask, 0).to(dtype), mask


def _reduced(loss: Loss, batch: Any, mask: Tensor) -> Iterator[Tensor]:
    """The loss of the batch under each normalisation."""
    for normalize in loss.normalize or (None,):
        objective = Objective(
            loss,
            normalize=normalize,
            constant=CONSTANT if normalize == "constant" else None,
        )
        values, _ = objective(batch)
        yield objective.reduce(
            values, mask, Step(mask.sum(), torch.tensor(float(len(mask))), 1)
        )


def picklable(function: Callable[..., Any]) -> str | None:
    """What is wrong with a plugin that must travel to other processes."""
    return (
        None
        if pickle.loads(pickle.dumps(function)) is not None
        else "is None after pickling"
    )


def _dtype(loss: Loss) -> str | None:
    for dtype in (torch.float32, torch.bfloat16):
        batch, _ = _batch(loss, *_logps((4, 2, 1), dtype))
        values, _ = Objective(loss)(batch)
        if values.dtype not in (dtype, torch.float32):
            return (
                f"{dtype} log-probs gave a loss of {values.dtype}; expected {dtype} or"
                " torch.float32"
            )
    return None


def _finite(loss: Loss) -> str | None:
    cases: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {
        "one token": (*_logps((1,)), None),
        "a row without response tokens": (*_logps((3, 0, 1)), None),
        "no response token at all": (*_logps((0, 0)), None),
        "very negative log-probs": (*_logps((4, 2), low=-1e5), None),
        "bfloat16": (*_logps((4, 2, 1), torch.bfloat16), None),
        "advantages of 0": (*_logps((4, 2)), torch.zeros(2, dtype=torch.float64)),
    }
    for name, (logps, mask, advantages) in cases.items():
        batch, leaf = _batch(loss, logps, mask, advantages=advantages)
        for reduced in _reduced(loss, batch, mask):
            gradient = torch.autograd.grad(reduced, leaf, retain_graph=True)[0]
            if not (reduced.isfinite() and gradient[mask].isfinite().all()):
                return (
                    f"{name}: loss {reduced.item():g}, gradient finite:"
                    f" {bool(gradient.isfinite().all())}"
                )
    return None


def _padding(loss: Loss) -> str | None:
    """Values on padding reach neither the loss nor the gradient."""
    if _kind(loss) == "preference":
        return None  # sums over responses come from the trainer
    logps, mask = _logps((6, 3, 1))
    clean, clean_leaf = _batch(loss, logps, mask)
    dirty, dirty_leaf = _batch(loss, logps.masked_fill(~mask, -5.0), mask)
    for one, other in zip(
        _reduced(loss, clean, mask), _reduced(loss, dirty, mask), strict=True
    ):
        gradients = [
            torch.autograd.grad(value, leaf, retain_graph=True)[0]
            for value, leaf in ((one, clean_leaf), (other, dirty_leaf))
        ]
        if any(gradient[~mask].any() for gradient in gradients):
            return "padding tokens have a gradient"
        if not torch.allclose(one, other) or not torch.allclose(*gradients):
            return (
                f"the loss reads padding: {one.item():g} becomes {other.item():g} when"
                " it changes"
            )
    return None


def _scales_with_advantages(loss: Loss) -> str | None:
    """Where old = reference = policy, a policy gradient is proportional to the
    advantages (or rewards).
    """
    logps, mask = _logps((5, 3, 4))
    gradients = []
    for factor in (0.0, 1.0, 2.0):
        advantages = factor * torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)
        batch, leaf = _batch(loss, logps, mask, drift=0.0, advantages=advantages)
        gradients.append(
            torch.autograd.grad(next(_reduced(loss, batch, mask)), leaf)[0]
        )
    none, once, twice = gradients
    if none.abs().max() > 1e-9:
        return (
            f"advantages of 0 leave a gradient of {none.abs().max():.2g}: something in"
            " them is not detached"
        )
    if not torch.allclose(twice, 2 * once, rtol=1e-6, atol=1e-12):
        return (
            "twice the advantages do not give twice the gradient: something in them is"
            " not detached"
        )
    return None


def _direction(loss: Loss) -> str | None:
    """A step against the gradient makes likelier what should be: demonstrations, good
    completions, chosen ones.
    """
    logps, mask = _logps((5, 3, 4))
    advantages = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)
    if _kind(loss) == "preference":
        chosen, rejected = (
            torch.full((3,), low, dtype=torch.float64, requires_grad=True)
            for low in (-2.0, -3.0)
        )
        batch: Any = PreferenceBatch(
            chosen, rejected, chosen.detach(), rejected.detach()
        )
        up, down = torch.autograd.grad(
            Objective(loss)(batch)[0].sum(), (chosen, rejected)
        )
        gain = down.sum() - up.sum()
    else:
        batch, leaf = _batch(loss, logps, mask, drift=0.0, advantages=advantages)
        gradient = torch.autograd.grad(next(_reduced(loss, batch, mask)), leaf)[0]
        wanted = advantages.unsqueeze(1) if _kind(loss) == "policy" else 1.0
        gain = -(gradient * wanted).sum()
    if gain > 0:
        return None
    if not gain.isfinite():
        return "the gradient is not finite"
    return (
        "the gradient is zero: nothing is learnt"
        if gain == 0
        else "the sign is wrong: it unlearns what is good"
    )


def _unchanged(loss: Loss) -> str | None:
    """A rollout batch is used again in later steps, so a loss must not write into it."""
    logps, mask = _logps((5, 3, 4))
    batch, _ = _batch(loss, logps, mask)
    names = [spec.name for spec in dataclasses.fields(batch)]
    before = {name: getattr(batch, name).detach().clone() for name in names}
    loss.function(batch)
    changed = [
        name for name in names if not torch.equal(before[name], getattr(batch, name))
    ]
    return (
        f"writes into batch.{', '.join(changed)}; make a new tensor instead"
        if changed
        else None
    )


# -- losses in the trainers ------------------------------------------------------------


def _defined(
    objective: Objective, method: str, laboratory: tiny.Laboratory
) -> str | None:
    expected = definition(objective, method, laboratory)
    return _differ(
        expected, laboratory.gradients(method, objective, tiny.WHOLE), "the definition"
    )


def _uncut(
    objective: Objective,
    method: str,
    cuts: Sequence[tiny.Cut],
    laboratory: tiny.Laboratory,
) -> str | None:
    expected = definition(objective, method, laboratory)
    for cut in cuts:
        if wrong := _differ(
            expected,
            laboratory.gradients(method, objective, cut),
            f"the definition in {cut}",
        ):
            return wrong
    return None


def _differ(expected: tiny.Gradients, found: tiny.Gradients, what: str) -> str | None:
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    gap = max(float((expected[name] - found[name]).abs().max()) for name in expected)
    if math.isfinite(gap) and gap <= TOLERANCE * scale:
        return None
    return (
        f"gradients differ by {gap / scale if scale else gap:.2g} of the largest one"
        f" from {what}"
    )


def definition(
    objective: Objective, method: str, laboratory: tiny.Laboratory
) -> tiny.Gradients:
    """The gradient of one step by definition: the plugin on each sequence alone,
    unpadded, then plain sums.
    """
    tokenizer, rows = laboratory.tokenizer, laboratory.rows
    net = tiny.model(tokenizer)
    if method == "dpo":
        reference = tiny.model(tokenizer, seed=1)
        losses = []
        for chosen, rejected in tiny.pairs(rows):
            policy = [_row_logps(net, row)[0].sum(1) for row in (chosen, rejected)]
            still = [
                _row_logps(reference, row)[0].sum(1).detach()
                for row in (chosen, rejected)
            ]
            losses.append(objective(PreferenceBatch(*policy, *still))[0])
        torch.stack(losses).mean().backward()
    else:
        used = [row for row in rows if method == "sft" or row.trained]
        tokens = sum(len(row.response) for row in used)
        longest = max(len(row.response) for row in used)
        total: Any = 0
        for row in used:
            values = objective(_row_batch(net, row, method))[0]
            count = values.numel()
            if objective.normalize is None:
                total = total + values.sum() / len(rows)
            elif objective.normalize == "token":
                total = total + values.sum() / tokens
            else:
                by = {"sequence": count, "constant": CONSTANT, "microbatch": longest}[
                    objective.normalize
                ]
                total = total + values.sum() / by / len(rows)
        total.backward()
    return {
        name: weight.grad
        for name, weight in net.named_parameters()
        if weight.grad is not None
    }


def _row_logps(net: Any, row: tiny.Row) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs (1, T) of the response tokens, their entropies and their ids (1, T)."""
    ids = torch.tensor([row.prompt + row.response])
    logits = net(ids).logits[:, len(row.prompt) - 1 : -1]
    response = ids[:, len(row.prompt) :]
    logps = logits.log_softmax(-1).gather(-1, response.unsqueeze(-1)).squeeze(-1)
    return logps, compute_entropy(logits.detach()), response


def _row_batch(net: Any, row: tiny.Row, method: str) -> Any:
    logps, entropies, ids = _row_logps(net, row)
    mask = torch.ones_like(ids, dtype=torch.bool)
    if method == "sft":
        return SFTBatch(logps, mask, entropies)
    still = logps.detach()
    advantage, reward = (
        torch.tensor([value], dtype=torch.float64)
        for value in (row.advantage, row.reward)
    )
    old, reference = still + tiny.drift(ids, 0.0), still + tiny.drift(ids, 2.0)
    return PolicyBatch(logps, old, mask, advantage, reward, reference, entropies)
