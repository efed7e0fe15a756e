"""A small batch of the real first rows, made and scored as the trainer does it.

Shapes: B rows, L columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignkit.proofs.log_probs import Document, documents

if TYPE_CHECKING:
    from alignkit.train.proving.subject import Subject

BATCH, AMONG = 4, 64  # rows of the batch, of unequal length among so many
LONGEST = 256  # tokens of a row that are looked at


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch as the trainer takes it: its log-probs (B, L - 1) of any tokens in it."""

    ids: Tensor  # (B, L)
    attended: Tensor  # (B, L) bool
    documents: Sequence[Document]
    score: Callable[[Tensor], Tensor]  # ids (B, L) to log-probs (B, L - 1)

    def of(self, logps: Tensor) -> list[Tensor]:
        """The log-probs of each document's trained tokens."""
        shifted = [slice(d.columns.start, d.columns.stop - 1) for d in self.documents]
        return [
            logps[document.row, columns][document.scored]
            for document, columns in zip(self.documents, shifted, strict=True)
        ]


def batch_of(subject: Subject) -> Seen:
    """The batch of the run's method."""
    makers = {"sft": _supervised, "dpo": _preferences}
    return makers.get(subject.config.method, _rollouts)(subject)


def unequal(lengths: Sequence[int]) -> list[int]:
    """The numbers of up to BATCH rows, of lengths as unequal as there are."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    if len(order) <= BATCH:
        return sorted(order)
    step = (len(order) - 1) / (BATCH - 1)
    return sorted(order[round(step * number)] for number in range(BATCH))


def _supervised(subject: Subject) -> Seen:
    trainer = subject.trainer
    rows = [_cut(row) for row in _first(trainer.train_dataset)]
    chosen = unequal([len(row["input_ids"]) for row in rows])
    inputs = trainer._prepare_inputs(trainer.data_collator([rows[n] for n in chosen]))
    positions = inputs.get("position_ids") if trainer.padding_free else None
    attended = (
        inputs["attention_mask"].bool()
        if "attention_mask" in inputs
        else torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    )

    def score(ids: Tensor) -> Tensor:
        given = {**inputs, "input_ids": ids, "use_cache": False}
        given["labels"] = torch.where(inputs["labels"] == -100, -100, ids)
        outputs = trainer.model(**given, fused_lm_head=True)
        logps: Tensor = outputs.log_probs
        return logps

    return _seen(
        inputs["input_ids"], attended, inputs["labels"] != -100, positions, score
    )


def _preferences(subject: Subject) -> Seen:
    trainer = subject.trainer
    rows = _first(trainer.train_dataset)
    chosen = unequal([len(row["prompt_ids"]) for row in rows])
    sides = ("prompt_ids", "chosen_ids", "rejected_ids")
    few = [
        {**rows[n], **{side: rows[n][side][: LONGEST // 2] for side in sides}}
        for n in chosen
    ]
    inputs = trainer._prepare_inputs(trainer.data_collator(few))
    mask = inputs["attention_mask"]

    def score(ids: Tensor) -> Tensor:
        labels = ids.masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = trainer.model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            labels=labels,
            fused_lm_head=True,
        )
        logps: Tensor = outputs.log_probs
        return logps

    trained = inputs["completion_mask"].bool()
    return _seen(inputs["input_ids"], mask.bool(), trained, None, score)


def _rollouts(subject: Subject) -> Seen:
    """Prompts padded on the left, and after each some of its own tokens, turned round,
    for a completion.
    """
    from trl.trainer.utils import pad

    trainer = subject.trainer
    prompts = [row["prompt"] for row in _first(trainer.train_dataset)]
    tokenized = trainer._tokenize_prompts(prompts)
    ids = [list(one)[-LONGEST:] for one in tokenized[0]]
    chosen = [ids[n] for n in unequal([len(one) for one in ids])]
    completions = [one[::-1][: 3 + 2 * n] for n, one in enumerate(chosen)]
    padding = trainer._tokenizer.pad_token_id

    def padded(rows: Sequence[Sequence[int]], value: int, side: str) -> Tensor:
        tensors = [torch.tensor(row, device=trainer.accelerator.device) for row in rows]
        return pad(tensors, padding_value=value, padding_side=side)

    def joined(fill: int, ones: bool) -> Tensor:
        def marked(rows: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
            return [[1] * len(row) for row in rows] if ones else rows

        before = padded(marked(chosen), fill, "left")
        return torch.cat([before, padded(marked(completions), fill, "right")], dim=1)

    inputs, mask = joined(padding, ones=False), joined(0, ones=True)
    width = max(map(len, completions))

    def score(given: Tensor) -> Tensor:
        logps, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, given, mask, width
        )
        blank = logps.new_zeros(len(logps), given.shape[1] - 1 - width)
        return torch.cat([blank, logps], dim=1)

    trained = mask.bool()
    trained[:, :-width] = False
    return _seen(inputs, mask.bool(), trained, None, score)


def _seen(
    ids: Tensor,
    attended: Tensor,
    trained: Tensor,
    positions: Tensor | None,
    score: Callable[[Tensor], Tensor],
) -> Seen:

    return Seen(ids, attended, documents(attended, trained, positions), score)


def _first(dataset: Any) -> list[Mapping[str, Any]]:
    return [dataset[number] for number in range(min(AMONG, len(dataset)))]


def _cut(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of SFT, packed or not, without what goes beyond LONGEST."""
    start = 0
    if "seq_lengths" not in row:
        trained = next((n for n, label in enumerate(row["labels"]) if label != -100), 0)
        start = max(0, trained - LONGEST // 2)
    window = slice(start, start + LONGEST)
    ids, labels = row["input_ids"][window], row["labels"][window]
    cut = {"input_ids": ids, "labels": labels}
    if "seq_lengths" in row:
        lengths, room = [], len(ids)
        for length in row["seq_lengths"]:
            if room > 0:
                lengths.append(min(length, room))
            room -= length
        cut["seq_lengths"] = lengths
    return cut
