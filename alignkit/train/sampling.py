"""Sample and grade the rollouts of one expert iteration, in a process of its own: its
memory is then free again.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import data, models
from alignkit.data.columns import QUESTION_OR_PROMPT
from alignkit.engines.base import Completion, Sampling, local_engine
from alignkit.engines.transformers import TransformersEngine
from alignkit.engines.vllm_start import Limits
from alignkit.errors import InputError, WorkError
from alignkit.evaluate import evaluate, plan_eval
from alignkit.grading import Grader
from alignkit.recipe.schema import ExpertIteration, OwnVllm
from alignkit.run import append_jsonl, atomic_write, read_jsonl, write_json
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
Row = dict[str, Any]


def questions(config: ExpertIteration, registry: Registry, iteration: int) -> list[Row]:
    """The questions of one iteration: drawn without repetition, the same ones for the
    same recipe and seed.
    """
    rows = data.load_rows(given(config.data.train), registry, seed=config.seed)
    wanted = min(config.expert_iteration.questions, len(rows))
    return random.Random(f"{config.seed} {iteration}").sample(rows, wanted)


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
    """
    config = recipe.stage
    assert isinstance(config, ExpertIteration)
    asked = questions(config, registry, iteration)
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
            rows = _rollouts(
                engine,
                everything,
                rendered,
                asked,
                sampling,
                home / "samples.jsonl",
                console,
            )
            _grade(config, registry, grader, rows, home)
            if config.expert_iteration.hints:
                unsolved = [
                    i
                    for i in everything
                    if not any(r["correct"] for r in rows if r["question"] == i)
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
                again = _rollouts(
                    engine,
                    unsolved,
                    shown,
                    hinted,
                    sampling,
                    home / "hinted.jsonl",
                    console,
                )
                for row in again:  # trained on without the hint
                    row |= {"prompt": rendered[row["question"]], "hinted": True}
                _grade(config, registry, grader, again, home)
                rows += again
    finally:
        engine.close()
    kept = _keep(rows, config.expert_iteration.correct)
    atomic_write(home / "rollouts.jsonl", _lines(rows))
    atomic_write(
        home / "train.jsonl",
        _lines([{"prompt": r["prompt"], "response": r["response"]} for r in kept]),
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


def _rollouts(
    engine: Engine,
    numbers: Sequence[int],
    prompts: Sequence[Any],
    asked: Sequence[Row],
    sampling: Sampling,
    store: Path,
    console: Console,
) -> list[Row]:
    """Every completion of every prompt; what `store` holds is not sampled again.

    `numbers` are the questions' own: which of them are asked again with a hint may
    differ in a resumed run, as a grading that timed out then may not now.
    """
    known = {
        (row["question"], row["sample"]): row
        for row in (read_jsonl(store) if store.is_file() else [])
    }
    for start in range(0, len(prompts), CHUNK):
        chunk = range(start, min(start + CHUNK, len(prompts)))
        if all((numbers[i], k) in known for i in chunk for k in range(sampling.n)):
            continue
        done = engine.generate([prompts[i] for i in chunk], sampling)
        new = [
            _row(numbers[i], k, prompts[i], asked[i], completion)
            for i, completions in zip(chunk, done, strict=True)
            for k, completion in enumerate(completions)
        ]
        append_jsonl(store, new)
        known |= {(row["question"], row["sample"]): row for row in new}
        if (
            chunk.stop == len(prompts)
            or start // CHUNK % max(1, len(prompts) // CHUNK // 5) == 0
        ):
            console.print(
                f"sampled {chunk.stop} of {len(prompts)} questions x {sampling.n}",
                highlight=False,
            )
    return [known[number, k] for number in numbers for k in range(sampling.n)]


def _row(
    question: int, number: int, prompt: Any, asked: Row, completion: Completion
) -> Row:
    logps = completion.logprobs or ()
    return {
        "question": question,
        "sample": number,
        "prompt": prompt,
        "response": completion.text,
        "truth": asked.get("truth"),
        "metadata": {
            k: v for k, v in asked.items() if k not in ("prompt", "truth", "response")
        },
        "finish_reason": completion.finish_reason,
        "tokens": completion.tokens,
        "surprise": -sum(logps) / len(logps) if logps else None,  # nats per token
    }


def _grade(
    config: ExpertIteration,
    registry: Registry,
    grader: Grader,
    rows: list[Row],
    home: Path,
) -> None:
    """Add `reward`, `status` and `correct` (status ok and a reward above 0) to every
    row.

    Raises:
        WorkError: a reward failed on a sample and the recipe says `on_error: stop`; the
            sample is in the rollouts.
    """
    columns = [
        [row[name] for row in rows]
        for name in ("response", "truth", "prompt", "metadata")
    ]
    weights = [entry.weight for entry in config.rewards.values()]
    scores = {
        name: [graded.score for graded in grader.score(bound, *columns)]
        for name, bound in bound_rewards(config, registry).items()
    }
    for i, row in enumerate(rows):
        row |= combine({name: s[i] for name, s in scores.items()}, weights)
        row["correct"] = row["status"] == "ok" and row["reward"] > 0
    for name, found in scores.items():
        failed = next((score for score in found if score.status == "error"), None)
        if failed is not None and config.rewards[name].on_error == "stop":
            atomic_write(home / "rollouts.jsonl", _lines(rows))
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
    kept: dict[tuple[int, str], Row] = {}
    solved: set[int] = set()
    for row in rows:
        if (
            row["correct"]
            and row["response"]
            and not (which == "single" and row["question"] in solved)
        ):
            kept.setdefault((row["question"], row["response"]), row)
            solved.add(row["question"])
    return list(kept.values())


def _counts(rows: Sequence[Row], kept: Sequence[Row], asked: int) -> dict[str, Any]:
    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    correct = [row for row in rows if row["correct"]]
    return {
        "ei/questions": asked,
        "ei/rollouts": len(rows),
        "ei/kept": len(kept),
        "ei/fraction_kept": len(kept) / len(rows),
        "ei/fraction_correct": len(correct) / len(rows),
        "ei/fraction_solved": len({row["question"] for row in correct}) / asked,
        # The mean surprise of sampled tokens estimates the entropy of an untempered
        # policy.
        "ei/entropy": mean(
            [row["surprise"] for row in rows if row["surprise"] is not None]
        ),
        "ei/response_length": mean([row["tokens"] for row in rows]),
        "ei/response_length_correct": mean([row["tokens"] for row in correct]),
        "ei/response_length_wrong": mean(
            [row["tokens"] for row in rows if not row["correct"]]
        ),
        **{
            f"ei/status/{status}": count / len(rows)
            for status, count in Counter(r["status"] for r in rows).items()
        },
    }


def with_hint(row: Row) -> Row:
    """The row with its truth in view, whichever of its columns holds the question."""
    hint = HINT.replace("{truth}", str(row.get("truth")))
    return {
        k: v + hint if k in QUESTION_OR_PROMPT and isinstance(v, str) else v
        for k, v in row.items()
    }


def _lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(
        "utf-8", "backslashreplace"
    )
