"""The completions of an eval: generated, chosen by likelihood, or stored ones taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from alignkit.engines.base import Completion, Engine, Likelihood, PromptText
from alignkit.errors import InputError, WorkError
from alignkit.evaluate.request import Planned
from alignkit.evaluate.store import OPEN, Key, Store
from alignkit.run import new_row
from alignkit.run.rows import Row
from alignkit.types import Sample

Progress = Callable[[str, int, int], None]  # (stage, done, total)
_CHUNK = 512  # log-likelihood requests between two writes to disk


def complete(
    planned: Planned,
    engine: Engine | None,
    store: Store,
    keys: list[Key],
    report: Progress,
) -> None:
    """Fill the store with a row for every key."""
    if planned.stored is not None:
        _take_stored(planned.samples, planned.stored, store, keys)
        return
    if engine is None:
        raise InputError(
            f"eval '{planned.request.plugin.name}' needs a model, an endpoint or stored"
            " responses"
        )
    wanted: dict[str, list[int]] = {}
    for name, number in keys:
        if (name, number) not in store.rows:
            wanted.setdefault(name, []).append(number)
    missing = [s for s in planned.samples if s.id in wanted]
    total = len(planned.samples)
    report("generate", total - len(missing), total)
    if planned.likelihood:
        _compare_choices(missing, engine, store, report, total)
    else:
        _generate(planned, missing, wanted, engine, store, report)


def _take_stored(
    samples: list[Sample], stored: Mapping[Key, Row], store: Store, keys: list[Key]
) -> None:
    by_id = {s.id: s for s in samples}
    fresh = []
    for key in keys:
        # The file may have changed since the last call.
        kept = store.rows.get(key, {})
        if any(kept.get(name) != value for name, value in stored[key].items()):
            fresh.append(unscored_row(by_id[key[0]], key[1], stored[key], 0.0))
    store.add(fresh)


def _generate(
    planned: Planned,
    missing: list[Sample],
    wanted: Mapping[str, list[int]],
    engine: Engine,
    store: Store,
    report: Progress,
) -> None:
    started = time.monotonic()
    total = len(planned.samples)
    done = total - len(missing)
    # Samples that lack the same completions are asked for together: mostly all of them.
    for numbers in sorted({tuple(n) for n in wanted.values()}):
        group = [s for s in missing if tuple(wanted[s.id]) == numbers]

        def on_done(
            index: int,
            found: list[Completion],
            group: list[Sample] = group,
            numbers: tuple[int, ...] = numbers,
        ) -> None:
            nonlocal done
            now = time.monotonic() - started
            store.add(
                unscored_row(group[index], number, _columns(completion), now)
                for number, completion in zip(numbers, found, strict=True)
            )
            done += 1
            report("generate", done, total)

        # Further completions of a question get another seed, or they would repeat the
        # first ones.
        seed = (planned.sampling.seed or 0) + numbers[0]
        sampling = replace(planned.sampling, n=len(numbers), seed=seed)
        engine.generate([s.prompt for s in group], sampling, on_done)


def _columns(completion: Completion) -> Row:
    return {
        "response": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": completion.tokens,
    }


def _compare_choices(
    missing: list[Sample], engine: Engine, store: Store, report: Progress, total: int
) -> None:
    started = time.monotonic()
    # Longest first: a batch holds prompts of like length, and memory runs out at once
    # or never.
    ordered = sorted(missing, key=lambda s: -len(str(s.prompt)))
    for start in range(0, len(ordered), _CHUNK):
        chunk = ordered[start : start + _CHUNK]
        rows = []
        for sample, told in zip(chunk, _likelihoods(chunk, engine), strict=True):
            values = [one.logprob for one in told]
            if any(map(math.isnan, values)):
                raise WorkError(
                    f"{engine.model}: the log-likelihoods of {sample.id} are not"
                    " numbers: it has diverged"
                )
            best = sample.choices[max(range(len(values)), key=values.__getitem__)]
            pairs = zip(sample.choices, told, strict=True)
            likelihoods = {"loglikelihoods": [[choice, *one] for choice, one in pairs]}
            chosen: Row = {
                "response": best,
                "finish_reason": "stop",
                "tokens": None,
                "metadata": likelihoods,
            }
            rows.append(unscored_row(sample, 0, chosen, time.monotonic() - started))
        store.add(rows)
        report("generate", total - len(ordered) + start + len(chunk), total)


def _likelihoods(
    samples: Sequence[Sample], engine: Engine
) -> Iterator[list[Likelihood]]:
    """Of every choice of every sample; one that has prompts of its own is a request of
    its own.
    """
    requests: list[tuple[PromptText, tuple[str, ...]]] = []
    for sample in samples:
        if sample.contexts:
            pairs = zip(sample.contexts, sample.choices, strict=True)
            requests += [(context, (choice,)) for context, choice in pairs]
        else:
            requests.append((sample.prompt, sample.choices))
    found = iter(engine.loglikelihoods(requests))
    for sample in samples:
        told = [next(found) for _ in sample.contexts or [sample.prompt]]
        yield [one for each in told for one in each]


def unscored_row(sample: Sample, number: int, completion: Row, seconds: float) -> Row:
    """A row that is not scored yet."""
    prompt = sample.prompt
    if not isinstance(prompt, str):
        prompt = [dict(message) for message in prompt]
    row: Row = {
        **completion,
        "id": sample.id,
        "sample": number,
        "prompt": prompt,
        "truth": sample.truth,
        "status": OPEN,
        "metadata": {**sample.metadata, **completion.get("metadata", {})},
        "seconds": round(seconds, 3),
    }
    return new_row(row)
