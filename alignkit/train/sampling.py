"""Sample and grade the rollouts of one expert iteration, in a process of its own: its
memory is then free again.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.data.encode import source
from alignkit.errors import InputError, WorkError
from alignkit.evaluate import evaluate, plan_eval
from alignkit.grading import Grader
from alignkit.recipe.schema import ExpertIteration
from alignkit.run import (
    Run,
    lock,
    write_json,
    write_rows,
)
from alignkit.run.rows import Row
from alignkit.train.asking import (
    UNCHANGED,
    Asking,
    Problem,
    sampling_engine,
    sampling_of,
)
from alignkit.train.evals import request
from alignkit.train.rewards import bound_rewards, combine, deciding, failure

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.engines.base import Engine
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe
    from alignkit.types import Prompt

log = logging.getLogger(__name__)

HINT = "\n(The answer is {truth}. Show how to get there.)"
GOING = 10.0  # seconds that the sampler of a run killed a moment ago may take to end


def questions(
    config: ExpertIteration, registry: Registry, iteration: int
) -> dict[int, Problem]:
    """The questions of one iteration by their number in the data set: drawn without
    repetition, the same ones for the same recipe and seed.
    """
    rows = data.load_rows(config.data.train.stated, registry, seed=config.seed)
    wanted = min(config.expert_iteration.questions, len(rows))
    draw = random.Random(f"{config.seed} {iteration}")
    return {number: rows[number] for number in draw.sample(range(len(rows)), wanted)}


def sample_logged(
    recipe: Recipe,
    registry: Registry,
    run: Run,
    iteration: int,
    model: str,
    console: Console,
) -> None:
    """`sample` into the folder of an iteration of a run, whose log gets what fails."""
    run.log_to_file()
    home = run.folder / "iterations" / f"{iteration:03d}"
    try:
        sample(recipe, registry, home, iteration, model, console)
    except Exception:
        log.exception("the sampling of iteration %d failed", iteration)
        raise


def sample(
    recipe: Recipe,
    registry: Registry,
    home: Path,
    iteration: int,
    model: str,
    console: Console,
) -> None:
    """Write `rollouts.jsonl` (graded), `train.jsonl` (what is kept) and `sampled.json`
    (the counts) into `home`.

    In the first iteration the evals that the recipe wants `before` run too, on the same
    loaded model; where nothing is kept those `after`, into `UNCHANGED`.

    Raises:
        InputError: another process samples this iteration.
    """
    with lock(home, patience=GOING):
        _sample(recipe, registry, home, iteration, model, console)


def _sample(
    recipe: Recipe,
    registry: Registry,
    home: Path,
    iteration: int,
    model: str,
    console: Console,
) -> None:
    config = recipe.stage
    assert isinstance(config, ExpertIteration)
    drawn = questions(config, registry, iteration)
    asked = list(drawn.values())
    prompt = data.load_prompt(config.data.template, registry)
    engine = sampling_engine(config, model)
    try:
        with Grader() as grader:
            if iteration == 1:
                evals = home.parents[1] / "evals"
                wanted = [name for name, e in config.evals.items() if e.before]
                _evals(wanted, config, registry, engine, grader, evals, model)
            spec = config.data.train.stated
            sources = [source(row, number, spec) for number, row in drawn.items()]
            sampling = sampling_of(config, iteration)
            ask = Asking(engine, sampling, iteration, sources, console)
            rendered = [data.render(prompt, row) for row in asked]
            rows = ask.rollouts(
                range(len(asked)), rendered, asked, home / "samples.jsonl"
            )
            _grade(config, registry, grader, rows, home)
            if config.expert_iteration.hints:
                again = _with_hints(ask, rows, asked, rendered, prompt, home)
                _grade(config, registry, grader, again, home)
                for row in again:
                    row["metadata"] = {**row["metadata"], "hinted": True}
                rows += again
            kept = _keep(rows, config.expert_iteration.correct)
            if not kept:  # no training will evaluate the model
                evals = home / UNCHANGED / "evals"
                wanted = [name for name, e in config.evals.items() if e.after]
                _evals(wanted, config, registry, engine, grader, evals, model)
    finally:
        engine.close()
    write_rows(home / "rollouts.jsonl", rows)
    write_rows(
        home / "train.jsonl",
        [{"prompt": row["prompt"], "response": row["response"]} for row in kept],
    )
    write_json(home / "sampled.json", _counts(rows, kept, len(asked)))


def _evals(
    names: Sequence[str],
    config: ExpertIteration,
    registry: Registry,
    engine: Engine,
    grader: Grader,
    folder: Path,
    model: str,
) -> None:
    """Of the model that is sampled from."""
    for name in names:
        planned = plan_eval(request(config, name, registry), registry)
        evaluate(planned, engine, folder, step=0, grader=grader, model=model)


def _with_hints(
    ask: Asking,
    rows: Sequence[Row],
    asked: Sequence[Problem],
    rendered: Sequence[Any],
    prompt: Prompt | None,
    home: Path,
) -> list[Row]:
    """Further rollouts of the questions that were never answered rightly, asked with
    the answer in view.
    """
    solved = {row["group"] for row in rows if _correct(row)}
    unsolved = [i for i in range(len(asked)) if i not in solved]
    hinted = [with_hint(asked[i]) for i in unsolved]
    shown = [data.render(prompt, row) for row in hinted]
    if any(text == rendered[i] for i, text in zip(unsolved, shown, strict=True)):
        raise InputError(
            "expert_iteration.hints: the prompt shows no text of a row to hint at"
        )
    again = ask.rollouts(unsolved, shown, hinted, home / "hinted.jsonl")
    for row in again:  # trained on without the hint
        row["prompt"] = rendered[row["group"] or 0]
    return again


def _correct(row: Row) -> bool:
    return row["status"] == "ok" and (row["reward"] or 0.0) > 0


def _grade(
    config: ExpertIteration,
    registry: Registry,
    grader: Grader,
    rows: list[Row],
    home: Path,
) -> None:
    """Add what the rewards say to every row.

    Raises:
        WorkError: a reward failed on a sample and the recipe says `on_error: stop`; the
            sample is in the rollouts.
    """
    columns = [
        [row["response"] for row in rows],
        [row["truth"] for row in rows],
        [row["prompt"] for row in rows],
        [row["metadata"] for row in rows],
        [row["tokens"] for row in rows],
    ]
    weights = [entry.weight for entry in config.rewards.values()]
    scores = {
        name: [graded.score for graded in grader.score(bound, *columns)]
        for name, bound in bound_rewards(config, registry).items()
    }
    for i, row in enumerate(rows):
        each = {name: of_reward[i] for name, of_reward in scores.items()}
        row.update(combine(each, weights, deciding(config.rewards)))
    for name, found in scores.items():
        failed = next((score for score in found if score.status == "error"), None)
        if failed is not None and config.rewards[name].on_error == "stop":
            write_rows(home / "rollouts.jsonl", rows)
            raise WorkError(
                failure(
                    name,
                    failed,
                    f"in iteration {int(home.name)}",
                    home / "rollouts.jsonl",
                )
            )


def _keep(rows: Sequence[Row], which: str) -> list[Row]:
    """The correct rows without repetitions; with `single` the first of each question.
    Nothing can be learnt from an empty response, whatever the reward says of it.
    """
    kept: dict[tuple[Any, Any], Row] = {}
    solved: set[Any] = set()
    for row in rows:
        again = which == "single" and row["group"] in solved
        if _correct(row) and row["response"] and not again:
            kept.setdefault((row["group"], row["response"]), row)
            solved.add(row["group"])
    return list(kept.values())


def _counts(rows: Sequence[Row], kept: Sequence[Row], asked: int) -> dict[str, Any]:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    correct = [row for row in rows if _correct(row)]
    wrong = [row for row in rows if not _correct(row)]
    # The mean surprise of sampled tokens estimates the entropy of an untempered policy.
    likelihood = mean(row["mean_logprob"] for row in rows)
    return {
        "ei/questions": asked,
        "ei/rollouts": len(rows),
        "ei/kept": len(kept),
        "ei/fraction_kept": len(kept) / len(rows),
        "ei/fraction_correct": len(correct) / len(rows),
        "ei/fraction_solved": len({row["group"] for row in correct}) / asked,
        "ei/entropy": None if likelihood is None else -likelihood,
        "ei/tokens": sum(row["tokens"] or 0 for row in rows),
        "ei/response_length": mean(row["tokens"] for row in rows),
        "ei/response_length_correct": mean(row["tokens"] for row in correct),
        "ei/response_length_wrong": mean(row["tokens"] for row in wrong),
        **{
            f"ei/status/{status}": count / len(rows)
            for status, count in Counter(r["status"] for r in rows).items()
        },
    }


def with_hint(row: Problem) -> Problem:
    """The row with its truth in view, whichever of its columns holds the question."""
    hint = HINT.replace("{truth}", str(row.get("truth")))
    return {
        k: v + hint if k in QUESTION_OR_PROMPT and isinstance(v, str) else v
        for k, v in row.items()
    }
