"""Evals without a plugin: rows of one's own, graded by a reward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from alignkit.benchmarks import Eval
from alignkit.data import needs_truth
from alignkit.data.columns import QUESTION_COLUMNS
from alignkit.errors import InputError, listing
from alignkit.evaluate.request import EvalRequest
from alignkit.grading.truths import TRUTH_COLUMNS, truth_column
from alignkit.plugins import Plugin
from alignkit.types import Sample


def own_request(
    name: str,
    reward: Plugin,
    options: Mapping[str, Any],
    data: Mapping[str, Any],
    **given: Any,
) -> EvalRequest:
    """An eval of rows (`data`, as `data.load_rows` takes it), graded by a reward.

    `given`: further fields of the request.
    """
    benchmark = Eval(name=name, samples=row_samples, metric="reward", data=data)
    # what it is, is the reward: the rows count by their content
    plugin = Plugin("eval", name, benchmark, reward.kit, reward.file)
    return EvalRequest.of(plugin, reward=(reward, options), data=data, **given)


def row_samples(
    rows: Iterable[Mapping[str, Any]], render: Callable[..., Any]
) -> Iterator[Sample]:
    """One sample per row; its truth is the first of `TRUTH_COLUMNS` that is filled, and
    the rest but prompt and response is metadata.

    The reward sees the whole response, as in training.

    Raises:
        InputError: a prompt that is neither a text nor messages.
    """
    for number, row in enumerate(rows, 1):
        prompt = render(row)
        if not isinstance(prompt, str) and not _is_chat(prompt):
            raise InputError(
                f"row {number} has the prompt {prompt!r:.80}; expected a text, or a list"
                " of messages with role and content"
            )
        truth = truth_column(row) or "truth"
        aside = ("prompt", "response", "_numbers", truth)
        metadata = {k: v for k, v in row.items() if k not in aside}
        asked = next((row[k] for k in QUESTION_COLUMNS if row.get(k)), None)
        if asked is not None:
            metadata["question"] = asked
        name = f"row-{number}" if row.get("id") is None else str(row["id"])
        yield Sample(name, prompt, row.get(truth), metadata, reasoning="keep")


def check_truths(reward: Plugin, samples: Sequence[Sample]) -> None:
    """Refuse samples without the truth that the reward needs.

    Raises:
        InputError: the first such row.
    """
    for number, sample in enumerate(samples, 1):
        if needs_truth(reward) and sample.truth is None:
            has = listing(sorted(map(str, sample.metadata)))
            raise InputError(
                f"reward '{reward.name}' needs a truth, and row {number} has none in"
                f" {', '.join(TRUTH_COLUMNS)} (it has {has}). Another column can serve:"
                " `columns: {truth: …}` of its data"
            )


def _is_chat(prompt: object) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(message, Mapping)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in prompt
        )
    )
