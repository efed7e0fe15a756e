"""Benchmarks, and the models that judge them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignkit.types import Message, Sample, Score

Summing = Callable[[Sequence[Mapping[str, Any]], Path], Mapping[str, Any]]
Answering = Callable[[Sequence[Sequence[Message]], Mapping[str, Any]], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A model that judges, behind an OpenAI-compatible endpoint, or made by
    `create(model)` (a local one).

    `read_choice` is for a host that writes some answers in its own way: it takes one of
    the answer's `choices` and returns its text, or None where the choice is written as
    everywhere.
    """

    name: str
    model: str
    base_url: str = ""
    key: str | None = None  # the environment variable that holds the key
    price: float | None = None  # US dollars per million tokens, in and out
    create: Callable[[str], Answering] | None = None
    read_choice: Callable[[Mapping[str, Any]], str | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTask:
    """How an eval is judged by a model: what is asked about a response, and what the
    answers mean.

    `conversations(sample, response)` gives the questions to the judge, most often one;
    none where the verdict is clear without it. `parse(sample, answers)` returns a
    Score, or None when they cannot be read (it then stays open). `configured(path)`
    reads the file of `--judge-config`, where the eval has such files.
    """

    conversations: Callable[[Sample, str], Sequence[Sequence[Message]]]
    parse: Callable[[Sample, Sequence[str]], Score | None]
    sampling: Mapping[str, Any] = field(
        default_factory=lambda: {"temperature": 0.0, "max_new_tokens": 16}
    )
    configured: Callable[[str], JudgeConfig] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """A judge as a file of an eval's own library describes it: `task` takes the place of
    the eval's.

    `judge` and `model` are asked where the command line names no other; `fields` go into
    each request; `read_choice` is as of `Judge`; `sha256` is of all that was read.
    """

    task: JudgeTask
    judge: str
    model: str
    sha256: str
    price: float | None = None  # US dollars per million tokens, in and out
    fields: Mapping[str, Any] = field(default_factory=dict)
    read_choice: Callable[[Mapping[str, Any]], str | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eval:
    """A benchmark.

    `samples(rows, render, *, options)` turns dataset rows into Samples (`render(row)`
    applies the prompt); `score(sample, response)` grades one completion, or `judge`
    describes how a model does; `summarize(results, folder)` adds breakdowns to the
    summary (and metrics, under `metrics`), where a result is a scored row of
    samples.jsonl, and may write files of its own. `data`, `prompt`, `sampling` are the
    published defaults that a recipe or flag may change. `where` is that of `Reward`;
    `example(sample, row)` is the answer of a solved row, where that is no `response`.
    """

    name: str
    samples: Callable[..., Iterable[Sample]]
    score: Callable[..., Score] | None = None
    judge: JudgeTask | None = None
    summarize: Summing | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # {dataset: …, split: …}
    prompt: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    source: str = ""  # the paper or repository whose settings these are
    example: Callable[[Sample, Mapping[str, Any]], str] | None = None
    where: Literal["pool", "process"] = "pool"


@dataclass(frozen=True, slots=True)
class EvalFamily:
    """`make(rest)` gives the eval `NAME:rest`; its dataset says whether there is one."""

    name: str
    make: Callable[[str], Eval]
