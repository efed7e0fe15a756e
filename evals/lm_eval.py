"""Every task of lm-evaluation-harness (EleutherAI), as `lm:TASK`: its prompts, filters and
metrics; `pip install 'alignkit[lm-eval]'`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from alignkit import DatasetSource, Eval, EvalFamily, InputError, Sample, hookimpl

from ._lm_metrics import chosen_metric, score, summarize
from ._lm_requests import build, row_of, truth_of
from ._lm_tasks import TASKS, Loaded, explained, load_tasks, version_of


def load(
    *,
    task: str,
    path: str | None = None,
    split: str | None = None,
    shots: int | None = None,
    chat: bool = False,
    multiturn: bool = False,
    system: str | None = None,
) -> list[dict[str, Any]]:
    """The requests of a task, a group or a tag, one row per question.

    `path`: a folder of further task YAMLs. `shots`: examples, in the place of the task's
    own number. `chat`: through the model's chat template; `multiturn`: examples as turns
    of it, `system`: its system message.
    """
    if split is not None:
        raise InputError(f"lm:{task} says itself which split it asks; leave split out")
    if shots is not None and shots < 0:
        raise InputError(f"shots is {shots}; expected at least 0")
    if not chat and (multiturn or system is not None):
        raise InputError("multiturn and system are read with chat=true only")
    rows = []
    for name, one in load_tasks(task, path).items():
        graded_by = version_of(name, one, path)
        shown = {"shots": shots, "chat": chat, "multiturn": multiturn, "system": system}
        with explained(name):
            requests = build(one, **shown)
        TASKS[path, name] = Loaded(one, requests)
        for doc, of_question in requests.items():
            row = row_of(name, doc, of_question, chat)
            rows.append({**row, "folder": path, "graded_by": graded_by})
    return rows


def samples(
    rows: Iterable[Mapping[str, Any]],
    render: Callable[..., Any],
    *,
    metric: str | None = None,
) -> Iterator[Sample]:
    """One sample per question. `metric` is the value: `acc_norm`, or with its filter
    `exact_match,flexible-extract`; by default the task's first that is a mean.
    """
    for row in rows:
        loaded = TASKS[row["folder"], row["task"]]
        known = {key: row[key] for key in _KNOWN if row[key] is not None}
        known["metric"] = chosen_metric(loaded.task, metric)
        contexts = row.get("contexts", [])
        yield Sample(
            row["id"],
            contexts[0] if contexts else row["prompt"],
            truth_of(loaded, row["doc"]),
            known,
            choices=tuple(row.get("choices", ())),
            contexts=tuple(contexts) if any(c != contexts[0] for c in contexts) else (),
            sampling=row.get("sampling", {}),
        )


_KNOWN = ("task", "doc", "folder", "graded_by")


def make(task: str) -> Eval:
    """The eval of one task, group or tag."""
    return Eval(
        name=f"lm:{task}",
        samples=samples,
        score=score,
        summarize=summarize,
        data={"dataset": "lm_eval", "task": task},
        metric="score",
        source="lm-evaluation-harness",
        where="process",  # a task holds functions that no worker can be handed
    )


@hookimpl
def align_eval_families() -> Iterator[EvalFamily]:
    yield EvalFamily("lm", make)


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("lm_eval", load, code=True)
