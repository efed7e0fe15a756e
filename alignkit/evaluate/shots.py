"""Solved questions shown before each question whose answer is generated."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError
from alignkit.evaluate.request import EvalRequest
from alignkit.types import Message, Prompt, Sample

if TYPE_CHECKING:
    from alignkit.plugins import Registry

FENCE = "```"
# a row -> its sample, by the eval's own rules; none where it makes none of it
Asking = Callable[[Mapping[str, Any]], Sample | None]


@dataclass(frozen=True, slots=True)
class _Solved:
    """An example: its id, the prompt that asks it, and that prompt with its answer."""

    name: str
    asked: object
    shown: str | list[Message]


def of_dataset(request: EvalRequest, registry: Registry) -> EvalRequest:
    """Hand `shots` to a dataset that shows solved questions itself.

    Raises:
        InputError: it does, and something else is asked for too.
    """
    source = {**request.plugin.value.data, **request.data}
    dataset = registry.get("dataset", source.get("dataset") or "jsonl")
    if request.shots_from is not None and request.shots is None:
        raise InputError("examples are named, but not how many: say shots (--shots N)")
    if request.shots is None or "shots" not in dataset.options():
        return request
    if request.shots_from is not None or "shots" in request.data:
        raise InputError(
            f"eval '{request.plugin.name}': its dataset '{dataset.name}' draws its shots"
            " itself; say their number once, and name no examples"
        )
    changed = {**request.data, "shots": request.shots}
    return replace(request, data=changed, shots=None)


def show(
    request: EvalRequest,
    source: Mapping[str, Any],
    samples: Sequence[Sample],
    prompt: Prompt | None,
    ask: Asking,
    datasets: Datasets,
) -> tuple[list[Sample], dict[str, Any]]:
    """The samples with examples before their prompts, and the record of these.

    The examples are drawn by the seed, the same ones for every question but for the
    question itself; more of them hold fewer ones.

    Raises:
        InputError: no rows to draw from, or too few of them; rows without an answer.
    """
    name, count = request.plugin.name, request.shots or 0
    if samples[0].choices:
        raise InputError(
            f"eval '{name}' compares likelihoods; shots are shown before answers that"
            " are generated"
        )
    rows = _rows(request, source, datasets)
    order = list(range(len(rows)))
    random.Random(f"shots {request.seed}").shuffle(order)
    drawn: list[_Solved] = []
    asked = {_key(sample.prompt) for sample in samples}
    # as many that are no question, and those that are one only for the others
    while order and sum(_key(one.asked) not in asked for one in drawn) < count:
        number = order.pop(0)
        sample = ask(rows[number])
        if sample is not None:
            drawn.append(_solved(request, sample, rows[number], number + 1, prompt))
    shown = []
    for sample in samples:
        own = _key(sample.prompt)
        others = [one for one in drawn if _key(one.asked) != own][:count]
        if len(others) < count:
            raise InputError(
                f"eval '{name}': shots is {count}, but there are {len(others)} solved"
                f" questions besides {sample.id}"
            )
        shown.append(replace(sample, prompt=_joined(others, sample.prompt)))
    names = [one.name for one in drawn[:count]]
    record = {"n": count, "seed": request.seed, "examples": names}
    return shown, record | {"sha256": data.fingerprint(rows)}


def _rows(
    request: EvalRequest, source: Mapping[str, Any], datasets: Datasets
) -> list[dict[str, Any]]:
    """Of the named file, else of the data's own train split."""
    name, file = request.plugin.name, request.shots_from
    whole = {key: value for key, value in source.items() if key != "limit"}
    if file is not None:
        return datasets.rows({**whole, "path": file}, request.seed)
    other = (
        "name a file of solved questions (--shots-from FILE, in a recipe shots_from)"
    )
    try:
        rows = datasets.rows({**whole, "split": "train"}, request.seed)
    except InputError as error:
        raise InputError(
            f"eval '{name}' has no train split to draw shots from ({error}); {other}"
        ) from error
    if rows == datasets.rows(whole, request.seed):
        raise InputError(
            f"eval '{name}' has no train split to draw shots from: its rows are the"
            f" questions themselves; {other}"
        )
    return rows


def _solved(
    request: EvalRequest,
    sample: Sample,
    row: Mapping[str, Any],
    number: int,
    prompt: Prompt | None,
) -> _Solved:
    example = request.plugin.value.example
    answer = row.get("response") if example is None else example(sample, row)
    if not isinstance(answer, str) or not answer.strip():
        raise InputError(
            f"eval '{request.plugin.name}' shows solved questions by their text"
            f" `response`; row {number} of the examples has none"
        )
    if not isinstance(sample.prompt, str):
        last = sample.prompt[-1]
        begun = last["role"] == "assistant"
        before = list(sample.prompt[:-1]) if begun else list(sample.prompt)
        said = (last["content"] if begun else "") + answer
        turns = [message for message in before if message["role"] != "system"]
        answered = {"role": "assistant", "content": said}
        return _Solved(sample.id, sample.prompt, [*turns, answered])
    text = sample.prompt + answer
    if prompt is not None and isinstance(prompt.template, str):
        text += prompt.template.partition("{response}")[2]
    if text.count(FENCE) % 2:
        text = f"{text.rstrip()}\n{FENCE}"
    return _Solved(sample.id, sample.prompt, f"{text.rstrip()}\n\n")


def _joined(
    examples: Sequence[_Solved], prompt: str | Sequence[Message]
) -> str | list[Message]:
    if isinstance(prompt, str):
        return "".join(str(one.shown) for one in examples) + prompt
    turns = [
        turn for one in examples for turn in one.shown if not isinstance(turn, str)
    ]
    system = [message for message in prompt if message["role"] == "system"]
    rest = [message for message in prompt if message["role"] != "system"]
    return [*system, *turns, *rest]


def _key(prompt: object) -> str:
    """What makes two questions the same, white space aside."""
    return " ".join(str(prompt).split())
