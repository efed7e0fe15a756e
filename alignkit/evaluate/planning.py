"""Make an eval ready: data, prompts, sampling settings; nothing is generated yet."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, nearest
from alignkit.evaluate.own import check_truths
from alignkit.evaluate.request import SAMPLING, EvalRequest, Planned
from alignkit.evaluate.responses import StoredResponses, completion
from alignkit.evaluate.shots import of_dataset, show
from alignkit.evaluate.store import Key
from alignkit.grading.truths import missing_truth
from alignkit.plugins import bind, check_options
from alignkit.run.rows import Row
from alignkit.sampling import DEFAULTS, Sampling
from alignkit.types import Sample

if TYPE_CHECKING:
    from alignkit.plugins import Plugin, Registry


def plan_eval(
    request: EvalRequest,
    registry: Registry,
    responses: StoredResponses | None = None,
    datasets: Datasets | None = None,
) -> Planned:
    """Load the data, render the prompts and check every setting; nothing is generated.

    `datasets` has the rows where others read them too.

    Raises:
        InputError: unknown options or settings, unfit data. MissingError: data out of
            reach.
    """
    request = of_dataset(request, registry)
    plugin, spec = request.plugin, request.plugin.value
    stated = [(plugin, request.options), *filter(None, [request.reward])]
    if problems := [text for one in stated for _, text in check_options(*one)]:
        raise InputError(*problems)
    of_generation = [*request.sampling, *(["shots"] if request.shots else [])]
    if responses is not None and of_generation:
        given = ", ".join(of_generation)
        raise InputError(
            f"eval '{plugin.name}': stored responses are not sampled, so nothing reads"
            f" {given}"
        )
    if request.samples < 1 or (request.limit is not None and request.limit < 1):
        raise InputError("--samples and --limit must be at least 1")
    name = request.prompt or spec.prompt
    prompt = data.load_prompt(name, registry)
    source = {**own_data(plugin), **request.data}
    datasets = datasets or Datasets(registry)
    own = responses is not None and responses.brings_questions
    rows = (
        responses.questions()
        if own and responses
        # an eval may change its rows
        else [dict(row) for row in datasets.rows(source, request.seed)]
    )
    rendered = False

    def render(row: Mapping[str, Any]) -> Any:
        nonlocal rendered
        rendered = True
        # Rows may carry the very prompt to ask; another one is asked for by name.
        bare = "prompt" in row and "question" not in row
        if bare and (own or request.prompt is None):
            return row["prompt"]
        return data.render(prompt, row)

    _check_questions(source, rows)
    make = bind(plugin, spec.samples, request.options)
    try:
        samples = list(make(rows, render))
    except KeyError as error:
        if not own:
            raise
        raise InputError(
            f"{responses and responses.path}: rows with a truth and no `id` stand for"
            f" themselves, and eval '{plugin.name}' also needs their {error}. Give each"
            " row the `id` of its sample, or leave out the truths"
        ) from error
    if request.prompt and not rendered:
        raise InputError(
            f"eval '{plugin.name}' makes its prompts itself here, so nothing reads the"
            f" prompt {name}"
        )
    prompt = prompt if rendered else None  # an eval may make its prompts itself
    _check_samples(plugin.name, samples)
    _check_alike(plugin.name, samples)
    if request.reward is not None:
        check_truths(request.reward[0], samples)
    if request.reasoning is not None:
        samples = [replace(s, reasoning=request.reasoning) for s in samples]
    stored, used = None, None
    chosen = samples if request.limit is None else spread(samples, request.limit)
    if responses is not None:
        stored = _stored(responses, own, rows, samples, chosen)
        asked, samples = len(samples), [s for s in samples if (s.id, 0) in stored]
        used = {
            "file": str(responses.path),
            "sha256": responses.sha256,
            "rows": len(responses.rows),
        }
        used |= {"rows_of_no_question": len(responses.rows) - len(stored)}
        used |= {
            "questions_without_response": max(
                0, min(asked, request.limit or asked) - len(samples)
            )
        }
        chosen = samples if request.limit is None else spread(samples, request.limit)
    samples = chosen
    if (
        samples[0].choices
        and responses is None
        and (request.samples > 1 or request.sampling)
    ):
        given = ", ".join(
            [*request.sampling, *(["--samples"] if request.samples > 1 else [])]
        )
        raise InputError(
            f"eval '{plugin.name}' compares likelihoods, nothing is sampled: leave out"
            f" {given}"
        )
    stop = tuple(
        dict.fromkeys(
            (*spec.sampling.get("stop", ()), *(prompt.stop if prompt else ()))
        )
    )
    published = {**spec.sampling, "stop": stop, **samples[0].sampling}
    sampling = replace(
        make_sampling({**published, **request.sampling}, plugin.name),
        seed=request.seed,
        n=request.samples,
    )
    sha256, shots = _sha256(samples), None
    if request.shots is not None:

        def ask(row: Mapping[str, Any]) -> Sample | None:
            return next(iter(make([row], render)), None)

        samples, shots = show(request, source, samples, prompt, ask, datasets)
    source = {"responses": responses.path.name} if own and responses else source
    return Planned(
        request=request,
        samples=samples,
        sampling=sampling,
        prompt=prompt,
        data=source,
        sha256=sha256,
        shots=shots,
        stored=stored,
        used=used,
    )


def _sha256(samples: Sequence[Sample]) -> str:
    content = [
        [s.id, s.prompt if isinstance(s.prompt, str) else list(s.prompt), s.truth]
        for s in samples
    ]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def own_data(plugin: Plugin) -> dict[str, Any]:
    """The data that an eval brings along; a relative path is looked up beside its
    plugin, else where one stands.
    """
    found = dict(plugin.value.data)
    stated = found.get("path")
    if isinstance(stated, str | Path):
        beside = plugin.file.parent / Path(stated).expanduser()
        if beside.exists():
            found["path"] = str(beside)
    return found


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """`limit` samples drawn by a fixed seed, in order; a larger limit holds those of a
    smaller one.
    """
    order = list(range(len(samples)))
    random.Random(336).shuffle(order)
    return [samples[i] for i in sorted(order[:limit])]


def make_sampling(given: Mapping[str, Any], where: str) -> Sampling:
    """Sampling from a map of settings.

    Raises:
        InputError: unknown setting or a value of the wrong type.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key not in SAMPLING:
            raise InputError(
                f"{where}: there is no sampling setting '{key}';"
                f" {nearest(key, SAMPLING)}"
            )
        wanted = DEFAULTS[key]
        if key == "stop":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, Sequence) or not all(
                isinstance(text, str) for text in value
            ):
                raise InputError(
                    f"{where}: stop is {value!r}; expected a text or a list of texts"
                )
            value = tuple(value)
        elif isinstance(value, bool) or not isinstance(
            value, (int, float) if isinstance(wanted, float) else int
        ):
            kind = "a number" if isinstance(wanted, float) else "an integer"
            raise InputError(f"{where}: {key} is {value!r}; expected {kind}")
        found[key] = float(value) if isinstance(wanted, float) else value
    return Sampling(**found)


def _check_questions(
    source: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    for number, row in enumerate(rows, 1):
        question = row.get("question", "-")
        if not isinstance(question, str) or not question.strip():
            raise InputError(
                f"{dict(source)}: row {number} has the question {question!r}; expected"
                " a text"
            )


def _check_alike(name: str, samples: Sequence[Sample]) -> None:
    first = samples[0]
    for sample in samples:
        if bool(sample.choices) != bool(first.choices):
            how = "one is generated, the other compares likelihoods"
        elif sample.sampling != first.sampling:
            how = f"{dict(first.sampling)} and {dict(sample.sampling)}"
        else:
            continue
        raise InputError(
            f"eval '{name}' answers {first.id} and {sample.id} in two ways ({how});"
            " evaluate its parts one by one"
        )


def _check_samples(name: str, samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError(f"eval '{name}' made no samples")
    ((twice, times),) = Counter(s.id for s in samples).most_common(1)
    if times > 1:
        raise InputError(
            f"eval '{name}' made {times} samples with the id {twice!r}; each needs its own"
        )
    for number, sample in enumerate(samples, 1):
        if sample.truth is not None and (why := missing_truth(sample.truth)):
            raise InputError(
                f"eval '{name}', row {number} ({sample.id}): the truth {why}; every"
                " answer would be graded against nothing"
            )


def _stored(
    responses: StoredResponses,
    own: bool,
    rows: list[dict[str, Any]],
    samples: list[Sample],
    chosen: list[Sample],
) -> dict[Key, Row]:
    if own:
        if len(samples) != len(rows):
            raise InputError(
                f"{responses.path} has {len(rows)} different questions with their"
                f" truths, but the eval makes {len(samples)} samples of them"
            )
        numbers = {s.id: row["_numbers"] for s, row in zip(samples, rows, strict=True)}
        return {
            (s, k): completion(responses.rows[n])
            for s, ns in numbers.items()
            for k, n in enumerate(ns)
        }
    questions = {
        s.id: str(s.metadata["question"]) for s in samples if "question" in s.metadata
    }
    return responses.match(samples, questions, chosen)
