"""Metrics of lm-evaluation-harness: of one response, and over all of them."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit import InputError, MissingError, Sample, Score

from ._lm_tasks import GROUPS, TASKS, Loaded

STAGE = "lm_eval"


def chosen_metric(task: Any, asked: str | None) -> str:
    """`metric,filter`: the one that is asked for, else the first that is a mean.

    Raises:
        InputError: the task has no such metric.
    """
    from lm_eval.api.metrics import mean

    filters = [ensemble.name for ensemble in task._filters]
    by_name = task.aggregation()
    known = [f"{metric},{name}" for metric in by_name for name in filters]
    if asked is None:
        means = [name for name, function in by_name.items() if function is mean]
        return f"{means[0]},{filters[0]}" if means else known[0]
    if asked in by_name:
        return f"{asked},{filters[0]}"
    if asked not in known:
        raise InputError(
            f"lm:{task.task_name} has no metric '{asked}'; known: {', '.join(known)}"
        )
    return asked


def _items(
    loaded: Loaded, sample: Sample, response: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """{`metric,filter`: what lm-eval's aggregation takes} of one response, and {filter:
    what it reads}.

    Raises:
        InputError: likelihoods are needed and not there. MissingError: data of nltk's.
    """
    from lm_eval.api.instance import Instance

    task, requests = loaded.task, loaded.requests[sample.metadata["doc"]]
    answers: list[Any] = [_cut(response, sample.sampling.get("stop", ()))]
    if sample.choices:
        answers = _likelihoods(task, sample)
    found, said = {}, {}
    for ensemble in task._filters:
        copies = [
            Instance(r.request_type, r.doc, r.arguments, r.idx, resps=[answer])
            for r, answer in zip(requests, answers, strict=True)
        ]
        ensemble.apply(copies)
        read = [copy.filtered_resps[ensemble.name] for copy in copies]
        try:
            values = task.process_results(requests[0].doc, read)
        except LookupError as error:
            if "nltk" not in str(error):
                raise
            raise MissingError(
                f"lm:{task.task_name} needs data of nltk's: {str(error).strip()[:300]}"
            ) from error
        found |= {f"{metric},{ensemble.name}": one for metric, one in values.items()}
        said[ensemble.name] = str(read[0])[:500]
    return found, said


def _cut(response: str, stops: Iterable[str]) -> str:
    """The text before the first stop string, which our engines leave in."""
    for stop in stops:
        response = response.partition(stop)[0]
    return response


def _likelihoods(task: Any, sample: Sample) -> list[tuple[float, bool]]:
    told = sample.metadata.get("loglikelihoods")
    if not told:
        raise InputError(
            f"lm:{task.task_name} compares likelihoods, and the stored responses have"
            " none: take the samples.jsonl of an eval"
        )
    greedy = task.OUTPUT_TYPE == "loglikelihood" or "exact_match" in task.aggregation()
    if greedy and any(one[2] is None for one in told):
        raise InputError(
            f"lm:{task.task_name} asks whether an answer is the likeliest, which this"
            " server does not say; take --engine transformers or vllm"
        )
    return [(one[1], bool(one[2])) for one in told]


def score(sample: Sample, response: str) -> Score:
    """What lm-eval's own filters and metrics say of one response: the sample's metric
    for it alone; the others that are means beside.
    """
    known = sample.metadata
    loaded, metric = TASKS[known.get("folder"), known["task"]], known["metric"]
    items, answers = _items(loaded, sample, response)
    by_name = loaded.task.aggregation()
    parts = {}
    for key, item in items.items():
        if isinstance(item, bool | int | float) and math.isfinite(item):
            parts[key] = float(item)
        elif key == metric:
            parts[key] = float(by_name[key.partition(",")[0]]([item]))
    if not math.isfinite(parts.get(metric, math.nan)):
        parts.pop(metric, None)
        why = f"no finite {metric} in {items!r:.300}"
        return Score(0.0, "error", parts, STAGE, why)
    told = json.dumps(items, default=_plain)
    voted = None if sample.choices else answers[metric.rpartition(",")[2]]
    return Score(parts[metric], None, parts, STAGE, told, voted)


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy's."""
    return value.tolist()


def _written(row: Mapping[str, Any]) -> dict[str, Any]:
    """What `score` wrote down; nothing where it failed."""
    scored = row["stage"] == STAGE and row["status"] in ("ok", "wrong")
    return json.loads(row["explanation"]) if scored else {}


def summarize(results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Every metric as lm-eval aggregates it: `metrics` are those of the task, or of the
    group that holds all tasks; by task and by group beside.
    """
    columns: dict[tuple[str | None, str], dict[str, list[Any]]] = {}
    for row in results:
        known = row["metadata"]
        place = known.get("folder"), known["task"]
        column = columns.setdefault(place, defaultdict(list))
        for key, item in _written(row).items():
            column[key].append(item)
    by_task = {
        place[1]: _aggregated(TASKS[place].task, column)
        for place, column in columns.items()
    }
    by_group: dict[str, dict[str, float]] = {}
    whole = next(iter(by_task.values())) if len(by_task) == 1 else {}
    for (where, name), group in GROUPS.items():
        members = {task.task_name for task in group.get_all_tasks()}
        if {(where, member) for member in members} <= columns.keys():
            by_group[name] = _named(group.aggregate(by_task))
            if members == by_task.keys():
                whole = by_group[name]
    by_task = {name: _named(metrics) for name, metrics in by_task.items()}
    return {"metrics": _named(whole), "by_task": by_task, "by_group": by_group}


def _aggregated(task: Any, column: Mapping[str, list[Any]]) -> dict[str, float]:
    from lm_eval.api.metrics import mean

    by_name = task.aggregation()
    metrics = {
        key: float(by_name.get(key.partition(",")[0], mean)(items))
        for key, items in column.items()
    }
    return {**metrics, "sample_len": max(map(len, column.values()), default=0)}


def _named(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without what a group adds, such as standard errors."""
    return {k: v for k, v in metrics.items() if "," in k and "_stderr," not in k}
