"""The trainer's log-probs of the real first rows, beside the model's on each alone.

Shapes: B rows, L columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignkit.models.head import OwnHead, pass_positions, takes_positions
from alignkit.proofs import log_probs
from alignkit.proofs.record import Finding
from alignkit.train.proving.batches import Seen, batch_of
from alignkit.train.proving.subject import Subject


def prove_alone(subject: Subject) -> Finding:
    """Claim `rows_alone`. Where positions or the head are to blame they are mended, and
    stay so.
    """
    if reason := sharded(subject.trainer):
        return Finding(unproven=reason)
    with still(subject.trainer) as model:
        batch = batch_of(subject)
        if not batch.documents:
            return Finding(unproven="no token of the first rows is trained on")
        finding = _look(subject, model, batch)
        if not finding.fault:
            return finding
        for cure in _cures(subject, model):
            with contextlib.ExitStack() as undo:
                note = cure(undo)
                mended = _look(subject, model, batch)
                if not mended.fault:
                    undo.pop_all()
                    return Finding(
                        value=mended.value,
                        tolerance=mended.tolerance,
                        unit=mended.unit,
                        note=f"{note}: without it they differed by {finding.value:.2g}",
                    )
    return finding


def prove_apart(subject: Subject) -> Finding:
    """Claim `rows_apart`: without any tolerance."""
    if reason := sharded(subject.trainer):
        return Finding(unproven=reason)
    with still(subject.trainer):
        batch = batch_of(subject)
        if len(batch.documents) < 2:
            return Finding(unproven="there is one row only")
        before = batch.of(batch.score(batch.ids))
        numbers = range(len(batch.documents))
        largest = max(
            _beside_others(batch, numbers[:1], before),
            _beside_others(batch, numbers[1:], before),
        )
    if not largest:
        return Finding(value=0.0, tolerance=0.0, unit="nats")
    return Finding(
        value=largest,
        tolerance=0.0,
        unit="nats",
        fault="other rows of its batch change a row's log-probs",
        cure=_apart_cure(subject),
    )


def _beside_others(
    batch: Seen, unchanged: Sequence[int], before: Sequence[Tensor]
) -> float:
    """How far (nats) the log-probs of the unchanged documents move when every other
    token of the batch is another one.
    """
    ids = log_probs.exchanged(batch.ids)
    ids = torch.where(batch.attended, ids, batch.ids)
    for number in unchanged:
        document = batch.documents[number]
        own = document.row, document.columns
        ids[own] = batch.ids[own]
    after = batch.of(batch.score(ids))
    return max(
        float((after[number] - before[number]).abs().max()) for number in unchanged
    )


def _look(subject: Subject, model: Any, batch: Seen) -> Finding:
    finding = _compare(subject, model, batch)
    return (
        finding if finding.fault else _compare_heads(subject, model, batch) or finding
    )


def _compare(subject: Subject, model: Any, batch: Seen) -> Finding:
    """The trainer's way, and the model's own on each row alone."""
    trainer = subject.trainer
    temperature = temperature_of(subject)
    with trainer.accelerator.autocast():
        path = batch.of(batch.score(batch.ids))
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        for document in batch.documents:
            ids = batch.ids[document.row, document.columns]
            for padding, logps in zip((0, log_probs.PADDING), rows, strict=True):
                every = log_probs.alone(model, ids, temperature, padding)
                logps.append(every[document.scored])
        dtype = _dtype(model)
    plain, padded = rows
    value = log_probs.spread(path, plain)
    noise = log_probs.spread(padded, plain)
    largest = max(float(logps.abs().max()) for logps in plain)
    tolerance = log_probs.allowed(noise, dtype, largest)
    finding = Finding(value=value, tolerance=tolerance, unit="nats per token")
    if value <= tolerance:
        return finding
    return Finding(
        value=value,
        tolerance=tolerance,
        unit="nats per token",
        fault=(
            "in the trainer's batch the log-probs are not those of"
            f" {type(model).__name__} on each row alone"
        ),
        cure=_alone_cure(subject),
    )


def _compare_heads(subject: Subject, model: Any, batch: Seen) -> Finding | None:
    """In half precision, where rounding in the layers below hides what the head does
    wrong: the trainer's head and the model's own, on the same states.
    """
    with subject.trainer.accelerator.autocast():
        dtype = _dtype(model)
        if dtype not in (torch.bfloat16, torch.float16):
            return None
        path = batch.of(batch.score(batch.ids))
        temperature = temperature_of(subject)
        head = OwnHead(model, temperature)
        try:
            own = batch.of(batch.score(batch.ids))
        finally:
            head.remove()
        first = batch.documents[0]
        logits = log_probs.logits_alone(model, batch.ids[first.row, first.columns])
    value = log_probs.spread(path, own)
    tolerance = log_probs.allowed_head(dtype, float(logits.abs().max()) / temperature)
    if value <= tolerance:
        return None
    return Finding(
        value=value,
        tolerance=tolerance,
        unit="nats per token",
        fault=f"the trainer's head does not compute what {type(model).__name__}'s does",
        cure=_alone_cure(subject),
    )


def _cures(
    subject: Subject, model: Any
) -> Iterator[Callable[[contextlib.ExitStack], str]]:
    """What may be to blame, each put in place until the stack is closed."""
    references = [subject.trainer.ref_model] if _has_reference(subject) else []

    def positions(undo: contextlib.ExitStack) -> str:
        for one in (model, *references):
            undo.callback(pass_positions(one).remove)
        return "positions count from a row's first token (position_ids are passed)"

    def head(undo: contextlib.ExitStack) -> str:
        for one in (model, *references):
            undo.callback(OwnHead(one, temperature_of(subject)).remove)
        return "log-probs come from the model's own head, not from TRL's fused one"

    def both(undo: contextlib.ExitStack) -> str:
        return f"{positions(undo)}; {head(undo)}"

    if takes_positions(model):
        yield positions
    yield head
    if takes_positions(model):
        yield both


def _has_reference(subject: Subject) -> bool:
    return subject.config.method != "sft" and subject.trainer.ref_model is not None


def temperature_of(subject: Subject) -> float:
    """What the trainer divides logits by; GRPO and RLOO only."""
    if subject.config.method in ("grpo", "rloo"):
        return float(subject.trainer.temperature)
    return 1.0


def _dtype(model: Any) -> torch.dtype:
    device = model.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    dtype: torch.dtype = model.dtype
    return dtype


def _packed(subject: Subject) -> bool:
    return subject.config.method == "sft" and bool(subject.trainer.padding_free)


def _alone_cure(subject: Subject) -> str:
    if _packed(subject):
        return (
            "The model does not read the positions of packed rows: say train.packing:"
            " false and train.padding_free: false."
        )
    return (
        "The model feels the padding beside a row, and no position_ids help: take"
        " another model, or one row per batch (train.per_device_train_batch_size: 1)."
    )


def _apart_cure(subject: Subject) -> str:
    if _packed(subject):
        return (
            "The rows that are packed beside it reach it: say train.packing: false and"
            " train.padding_free: false."
        )
    return (
        "A model whose experts or norms look at the whole batch does so; where that is"
        " meant, waive it."
    )


def sharded(trainer: Any) -> str:
    """Why a model that is spread over processes is not looked at."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "the model is sharded over the processes"
    return ""


@contextlib.contextmanager
def still(trainer: Any) -> Iterator[Any]:
    """The model without dropout and gradients; everything else stays as it was."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    training = [module for module in model.modules() if module.training]
    trainer.model.eval()
    try:
        with torch.no_grad():
            yield bare(model)
    finally:
        for module in training:
            module.training = True


def bare(model: Any) -> Any:
    """The causal language model itself; its adapter works inside it."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model
