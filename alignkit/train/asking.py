"""How the questions of an expert iteration are asked: the engine, the sampling, and a
store of what was answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import models
from alignkit.data.encode import metadata
from alignkit.engines.base import Completion, Sampling, local_engine
from alignkit.engines.transformers import TransformersEngine
from alignkit.engines.vllm_start import Limits
from alignkit.recipe.schema import ExpertIteration, OwnVllm
from alignkit.run import append_rows, new_row, read_rows
from alignkit.run.rows import Row, Source
from alignkit.terminal import say
from alignkit.train.evals import BATCH

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.engines.base import Engine

# questions between two writes, always whole: a resumed run samples the very same texts
CHUNK = 32
Problem = dict[str, Any]  # a row of the data set
UNCHANGED = "unchanged"  # holds the evals of an iteration that trains nothing


def sampling_engine(config: ExpertIteration, model: str) -> Engine:
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


def sampling_of(config: ExpertIteration, iteration: int) -> Sampling:
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
                say(
                    self.console,
                    f"sampled {chunk.stop} of {len(prompts)} questions x {count}",
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
