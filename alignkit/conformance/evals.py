"""Proof that an eval has the samples it says, and scores and judges them alike each
time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from alignkit import data, plugins
from alignkit.benchmarks import JudgeTask
from alignkit.conformance.check import Test, unless
from alignkit.conformance.responses import HOSTILE, ORDINARY, PROMPT
from alignkit.evaluate.planning import own_data
from alignkit.plugins import Plugin, Registry
from alignkit.types import Sample, Score

Samples = Callable[[], list[Sample]]


def eval_tests(plugin: Plugin, registry: Registry) -> Iterator[tuple[str, Test]]:
    """The tests of an eval with its default options, on its first samples."""
    spec = plugin.value
    samples = functools.partial(_samples, plugin, registry)
    yield "samples", functools.partial(_stable, samples)
    if spec.score is not None:
        score = functools.partial(plugins.bind, plugin, spec.score, {})
        yield "scores", functools.partial(_scores, score, samples)
    if spec.judge is not None:
        yield "judge", functools.partial(_judged, spec.judge, samples)


def _samples(plugin: Plugin, registry: Registry) -> list[Sample]:
    spec = plugin.value
    prompt = data.load_prompt(spec.prompt, registry)
    rows = data.load_rows({**own_data(plugin), "limit": 50}, registry, seed=0)
    make = plugins.bind(plugin, spec.samples, {})
    return list(make(rows, functools.partial(data.render, prompt)))


def _stable(samples: Samples) -> str | None:
    ids = [sample.id for sample in samples()]
    if len(set(ids)) < len(ids):
        return f"{len(ids)} samples have only {len(set(ids))} different ids"
    same = ids == [sample.id for sample in samples()]
    return unless(same, "the samples come in another order the second time")


def _scores(bind: Callable[[], Callable[..., object]], samples: Samples) -> str | None:
    score = bind()
    sample = next(iter(samples()), Sample("0", PROMPT, "42"))
    for text in (*ORDINARY, *HOSTILE):
        one, two = score(sample, text), score(sample, text)
        if not (isinstance(one, Score) and isinstance(two, Score)):
            return f"score returned {type(one).__name__}; expected Score"
        if (one.reward, one.status) != (two.reward, two.status):
            return f"{text[:60]!r} scored {one.reward}, then {two.reward}"
    return None


def _judged(judge: JudgeTask, samples: Samples) -> str | None:
    sample = next(iter(samples()))
    conversations = judge.conversations(sample, "a response")
    texts = [m.get("content") for messages in conversations for m in messages]
    if not all(isinstance(text, str) for text in texts):
        return "a conversation with the judge must be messages with texts"
    verdict = judge.parse(sample, ["no verdict at all \x00"] * len(conversations))
    return unless(
        verdict is None, "an unreadable verdict was counted; parse must return None"
    )
