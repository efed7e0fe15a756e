"""Sample and grade the rollouts of one expert iteration, in a process of its own: its
memory is then free again.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data, models
from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.data.encode import metadata, source
from alignkit.engines.base import Completion, Sampling, local_engine
from alignkit.engines.transformers import TransformersEngine
from alignkit.engines.vllm_start import Limits
from alignkit.errors import InputError, WorkError
from alignkit.evaluate import evaluate, plan_eval
from alignkit.grading import Grader
from alignkit.recipe.schema import ExpertIteration, OwnVllm
from alignkit.run import append_rows, lock, new_row, read_rows, write_json, write_rows
from alignkit.run.rows import Row, Source
from alignkit.train.evals import BATCH, given, given_prompt, request
from alignkit.train.rewards import bound_rewards, combine, failure

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.engines.base import Engine
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

# questions between two writes, always whole: a resumed run samples the very same texts
CHUNK = 32
HINT = "\n(The answer is {truth}. Show how to get there.)"
Problem = dict[str, Any]  # a row of the data set
GOING = 10.0  # seconds that the sampler of a run killed a moment ago may take to end


def questions(
    config: ExpertIteration, registry: Registry, iteration: int
) -> dict[int, Problem]:
    """The questions of one iteration by their number in the data set: drawn without
    repetition, the same ones for the same recipe and seed.
    """
    rows = data.load_rows(given(config.data.train), registry, seed=config.seed)
    wanted = min(config.expert_iteration.questions, len(rows))
    draw = random.Random(f"{config.seed} {iteration}")
    return {number: rows[number] for number in draw.sample(range(len(rows)), wanted)}


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
    loaded model.

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
    prompt = data.load_prompt(given_prompt(config.data.prompt), registry)
    engine = _engine(config, model)
    try:
        with Grader() as grader:
            if iteration == 1:
                for name, entry in config.evals.items():
                    if entry.before:
                        planned = plan_eval(request(config, name, registry), registry)
                        evaluate(
                            planned,
                            engine,
                            home.parents[1] / "evals",
                            step=0,
                            grader=grader,
                            model=model,
                        )
            sampling = _sampling(config, iteration)
            rendered = [data.render(prompt, row) for row in asked]
            everything = range(len(asked))
            spec = given(config.data.train)
            sources = [source(row, number, spec) for number, row in drawn.items()]
            ask = Asking(engine, sampling, iteration, sources, console)
            rows = ask.rollouts(everything, rendered, asked, home / "samples.jsonl")
            _grade(config, registry, grader, rows, home)
            if config.expert_iteration.hints:
                unsolved = [
                    i
                    for i in everything
                    if not any(_correct(row) for row in rows if row["group"] == i)
                ]
                hinted = [with_hint(asked[i]) for i in unsolved]
                shown = [data.render(prompt, row) for row in hinted]
                if any(
                    text == rendered[i] for i, text in zip(unsolved, shown, strict=True)
                ):
                    raise InputError(
                        "expert_iteration.hints: the prompt shows no text of a row to"
                        " hint at"
                    )
                again = ask.rollouts(unsolved, shown, hinted, home / "hinted.jsonl")
                for row in again:  # trained on without the hint
                    row["prompt"] = rendered[row["group"] or 0]
                _grade(config, registry, grader, again, home)
                for row in again:
                    row["metadata"] = {**row["metadata"], "hinted": True}
                rows += again
    finally:
        engine.close()
    kept = _keep(rows, config.expert_iteration.correct)
    write_rows(home / "rollouts.jsonl", rows)
    write_rows(
        home / "train.jsonl",
        [{"prompt": row["prompt"], "response": row["response"]} for row in kept],
    )
    write_json(home / "sampled.json", _counts(rows, kept, len(asked)))


def _engine(config: ExpertIteration, model: str) -> Engine:
    chosen = local_engine(config.generation.engine)
    if chosen == "vllm":
        from alignkit.engines.vllm import VLLMEngine

        limits = _limits(config.generation.vllm)
        return VLLMEngine.start(
            model,
            revision=revision_of(config, model),
            dtype=config.model.dtype,
            limits=limits,
        )
    import transformers

    transformers.utils.logging.disable_progress_bar()
    loaded, tokenizer = models.load(
        model,
        dtype=config.model.dtype,
        attention=config.model.attention,
        revision=revision_of(config, model),
        for_training=False,
    )
    return TransformersEngine(loaded, tokenizer, name=model, batch_size=BATCH)


def revision_of(config: ExpertIteration, model: str) -> str | None:
    """The recipe's revision, for the model it starts from; one that an iteration made
    has none.
    """
    return config.model.revision if model == config.model.path else None


def _limits(vllm: OwnVllm | None) -> Limits:
    if vllm is None:
        return Limits()
    limits = Limits(
        max_model_len=vllm.max_model_len, tensor_parallel_size=vllm.tensor_parallel
    )
    if vllm.gpu_memory_utilization is None:
        return limits
    return replace(limits, gpu_memory_utilization=vllm.gpu_memory_utilization)


def _sampling(config: ExpertIteration, iteration: int) -> Sampling:
    return replace(
        config.generation.sampling,
        seed=config.seed * 1000 + iteration,
        n=config.expert_iteration.rollouts,
        logprobs=True,
    )


@dataclass(frozen=True)
class Asking:
    """How the questions of one iteration are asked."""

    engine: Engine
    sampling: Sampling
    iteration: int
    sources: Sequence[Source]  # of all questions
    console: Console

    def rollouts(
        self,
        numbers: Sequence[int],
        prompts: Sequence[Any],
        asked: Sequence[Problem],
        store: Path,
    ) -> list[Row]:
        """Every completion of every prompt; what `store` holds is not sampled again.

        `numbers` are the questions' own: which of them are asked again with a hint may
        differ in a resumed run, as a grading that timed out then may not now.
        """
        count = self.sampling.n
        known = {
            (row["group"], row["sample"]): row
            for row in (read_rows(store) if store.is_file() else [])
        }
        for start in range(0, len(prompts), CHUNK):
            chunk = range(start, min(start + CHUNK, len(prompts)))
            if all((numbers[i], k) in known for i in chunk for k in range(count)):
                continue
            started = time.monotonic()
            done = self.engine.generate([prompts[i] for i in chunk], self.sampling)
            seconds = round(time.monotonic() - started, 3)
            new = [
                new_row(
                    {
                        "step": self.iteration,
                        "group": numbers[i],
                        "sample": k,
                        "prompt": prompts[i],
                        "truth": asked[i].get("truth"),
                        "source": self.sources[numbers[i]],
                        "metadata": metadata(asked[i]),
                        "seconds": seconds,
                        **_completed(completion),
                    }
                )
                for i, completions in zip(chunk, done, strict=True)
                for k, completion in enumerate(completions)
            ]
            append_rows(store, new)
            known |= {(row["group"], row["sample"]): row for row in new}
            if (
                chunk.stop == len(prompts)
                or start // CHUNK % max(1, len(prompts) // CHUNK // 5) == 0
            ):
                self.console.print(
                    f"sampled {chunk.stop} of {len(prompts)} questions x {count}",
                    highlight=False,
                )
        return [known[number, k] for number in numbers for k in range(count)]


def _completed(completion: Completion) -> Row:
    logps = completion.logprobs or ()
    return {
        "response": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": completion.tokens,
        "mean_logprob": sum(logps) / len(logps) if logps else None,
    }


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
    ]
    weights = [entry.weight for entry in config.rewards.values()]
    scores = {
        name: [graded.score for graded in grader.score(bound, *columns)]
        for name, bound in bound_rewards(config, registry).items()
    }
    for i, row in enumerate(rows):
        row.update(combine({name: s[i] for name, s in scores.items()}, weights))
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
