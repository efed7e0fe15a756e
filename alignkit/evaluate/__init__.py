"""Evaluate: samples, an engine or stored responses, scores, a summary with its
provenance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.endpoint.openai import OpenAIClient
from alignkit.engines.base import Engine
from alignkit.evaluate.completions import Progress, complete, unscored_row
from alignkit.evaluate.own import own_request
from alignkit.evaluate.planning import make_sampling, plan_eval
from alignkit.evaluate.request import SAMPLING, EvalRequest, Planned
from alignkit.evaluate.responses import StoredResponses
from alignkit.evaluate.scoring import Scorer
from alignkit.evaluate.store import Key, Store, model_state, unscored
from alignkit.evaluate.summary import breakdown, summarize
from alignkit.machine.here import versions
from alignkit.plugins import effective_options
from alignkit.run.rows import Row, plain

if TYPE_CHECKING:
    from alignkit.endpoint.judges import JudgeClient
    from alignkit.grading import Grader

__all__ = [
    "SAMPLING",
    "EvalRequest",
    "Planned",
    "Progress",
    "StoredResponses",
    "breakdown",
    "evaluate",
    "make_sampling",
    "own_request",
    "plan_eval",
]


def evaluate(
    planned: Planned,
    engine: Engine | None,
    folder: Path,
    *,
    model: str | None = None,
    how: Mapping[str, Any] | None = None,
    step: int = 0,
    judge: JudgeClient | None = None,
    grader: Grader | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Generate what is missing, score it, and write
    `<folder>/<eval>@<step>/{samples.jsonl, summary.json}`.

    Args:
        engine: None for stored responses.
        model: recorded in the place of the engine's own name (a model in training, a
            file of responses).
        how: the `api` of an endpoint or the `dtype` of the weights where asked for:
            results of others are not mixed.
        judge: for evals that are judged by a model.
        grader: the pool in which scores are computed; None makes one and closes it.
        resume: go on with what the folder holds; False replaces it.
        progress: called with (stage, done, total). announce: called with the cost
            estimate before a judge is asked.

    Returns: The summary. Its status counts `open` completions whose judgement failed:
        call again to go on.

    Raises:
        InputError: the folder holds results of other settings; a judged eval without a
            judge.
    """
    started = time.monotonic()
    report = progress or (lambda stage, done, total: None)
    name = planned.request.plugin.name
    model = model or (engine.model if engine else "stored responses")
    settings = {**_settings(planned, engine, model), "how": dict(how) if how else None}
    if planned.used and announce:
        announce(_fit(name, planned.used))
    scorer = Scorer(
        planned.request,
        judge,
        grader,
        announce or (lambda text: None),
        planned.samples,
    )
    prompt = planned.prompt.name if planned.prompt else None
    place = Path(folder) / f"{name}@{step}"
    store = Store(place, settings, scorer.identity, resume, prompt)
    try:
        keys = _keys(planned)
        _drop_changed(planned, store)
        if announce and store.regraded:
            announce(f"{name}: its scores are computed anew: {store.regraded}")
        if announce and engine and (kept := sum(key in store.rows for key in keys)):
            # A server may have another model under the same name by now: nobody but the
            # user can tell.
            announce(
                f"{name}: {kept} of {len(keys)} completions are kept from earlier calls"
                " (--no-resume: none)"
            )
        before = time.monotonic()
        complete(planned, engine, store, keys, report)
        generated = time.monotonic()
        scorer.score(planned.samples, store, keys, report)
        rows = [store.rows[key] for key in keys]
        summary: dict[str, Any] = {
            "eval": name,
            "step": step,
            "metric": planned.request.plugin.value.metric,
        }
        summary |= summarize(rows, planned.request.samples)
        if scorer.cost:
            summary["judging"] = scorer.cost
        extra = planned.request.plugin.value.summarize
        if extra is not None:
            scored = [r for r in rows if r["reward"] is not None]
            found = dict(extra(scored, store.folder))
            summary["reported"] = found.pop("metrics", {})
            summary["metrics"] |= summary["reported"]
            summary["breakdown"] = found
        summary["provenance"] = {
            **_provenance(planned, engine, model, scorer, _adapted(engine, store)),
            "how": settings["how"],
        }
        finished = time.monotonic()
        summary["timings"] = {
            "generate_seconds": round(generated - before, 3),
            "score_seconds": round(finished - generated, 3),
            "total_seconds": round(finished - started, 3),
        }
        store.finish(keys, summary)
        return {**summary, "folder": str(store.folder)}
    finally:
        store.close()


def _fit(name: str, used: Mapping[str, Any]) -> str:
    text = (
        f"{name}: {used['rows'] - used['rows_of_no_question']} of {used['rows']}"
        " responses fit"
    )
    if missing := used["questions_without_response"]:
        text += (
            f"; {missing} questions have no response and are left out of every number"
        )
    return text


def _keys(planned: Planned) -> list[Key]:
    if planned.stored is not None:
        counts: dict[str, int] = {}
        for name, number in planned.stored:
            counts[name] = max(counts.get(name, 0), number + 1)
        return [(s.id, k) for s in planned.samples for k in range(counts[s.id])]
    return [(s.id, k) for s in planned.samples for k in range(planned.request.samples)]


def _drop_changed(planned: Planned, store: Store) -> None:
    """Of changed data: a completion of another prompt is made anew, another truth or
    metadata scored anew.
    """
    by_id = {s.id: s for s in planned.samples}
    for key, row in list(store.rows.items()):
        if key[0] not in by_id:
            continue
        sample = by_id[key[0]]
        fresh: Row = plain(unscored_row(sample, key[1], {}, 0.0))
        now = {**row["metadata"], **fresh["metadata"]}
        if row["prompt"] != fresh["prompt"]:
            del store.rows[key]
        # a reference reply is metadata
        elif (row["truth"], row["metadata"]) != (fresh["truth"], now):
            changed: Row = {"truth": fresh["truth"], "metadata": now}
            store.rows[key] = unscored({**row, **changed})


def _settings(planned: Planned, engine: Engine | None, model: str) -> dict[str, Any]:
    """What the completions depend on, besides the text of each prompt."""
    sampling = {
        k: list(v) if k == "stop" else v
        for k, v in planned.sampling.record().items()
        if k != "n"
    }
    return {
        "model": model,
        "model_state": model_state(model),
        "engine": engine.name if engine else "responses",
        "sampling": None if planned.likelihood or engine is None else sampling,
        "prompt": data.prompt_hash(planned.prompt),
        "data": planned.data,
        "shots": planned.shots,
    }


def _adapted(engine: Engine | None, store: Store) -> list[str]:
    """What of the requests the server did not take as they were, earlier calls
    included.
    """
    now: list[str] = []
    if isinstance(engine, OpenAIClient):
        now = engine.endpoint.adaptation.notices
    return list(dict.fromkeys([*store.adapted, *now]))


def _provenance(
    planned: Planned,
    engine: Engine | None,
    model: str,
    scorer: Scorer,
    adapted: list[str],
) -> dict[str, Any]:
    request = planned.request
    prompt = {
        "name": planned.prompt.name if planned.prompt else None,
        "sha256": data.prompt_hash(planned.prompt),
    }
    settings = _settings(planned, engine, model)
    sampling = settings["sampling"]
    if sampling and adapted:
        sampling = {**sampling, "adapted": adapted}
    return {
        "prompt": prompt,
        "grader": scorer.identity["grader"],
        "data": {
            **planned.data,
            "sha256": planned.sha256,
            "n": len(planned.samples),
            "limit": request.limit,
        },
        "sampling": sampling,
        "samples": request.samples,
        "shots": planned.shots,
        "judge": scorer.identity["judge"],
        "engine": settings["engine"],
        "model": model,
        "model_state": settings["model_state"],
        "responses": planned.used,
        "options": effective_options(request.plugin, request.options),
        "versions": versions(),
        "source": request.plugin.value.source,
    }
