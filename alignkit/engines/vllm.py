"""Generation and log-likelihoods with vLLM in this process: on its own `LLM`, or on a
trainer's.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.engines.base import Completion, Likelihood, OnDone, PromptText, Sampling
from alignkit.engines.prompts import PromptCoder
from alignkit.engines.stopping import special_stops
from alignkit.engines.vllm_start import (
    Limits,
    explained,
    foreign_tokenizer,
    lora_settings,
    start_llm,
    stop_llm,
)
from alignkit.errors import InputError, WorkError
from alignkit.machine.gpus import cuda_available

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import LLM, CompletionOutput, RequestOutput, SamplingParams


class VLLMEngine:
    """vLLM with continuous batching and prefix caching.

    Args:
        llm: a running `vllm.LLM`.
        tokenizer: the model's, as `models.load_tokenizer` gives it.
        name: how provenance calls the model.
        limits: those in force, for messages.
        adapter: folder of a LoRA adapter to put on the model (the LLM must allow LoRA).
        owned: stop the LLM in `close`.
    """

    name = "vllm"

    def __init__(
        self,
        llm: LLM,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        limits: Limits,
        adapter: Path | None = None,
        owned: bool = False,
    ) -> None:
        from vllm.lora.request import LoRARequest

        context = llm.llm_engine.model_config.max_model_len
        self.model = name
        self.limits = replace(limits, max_model_len=context)
        self._llm = llm
        self._prompts = PromptCoder(tokenizer, name, context)
        self._adapter = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        self._owned = owned
        self._requests = 0
        check_same_tokenizer(llm.get_tokenizer(), tokenizer, name)

    @classmethod
    def start(
        cls,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        limits: Limits | None = None,
        prefix_caching: bool = True,
    ) -> VLLMEngine:
        """Start vLLM on a Hub id, a folder, a run folder, or a LoRA adapter's folder
        (put on its base, unmerged).

        `dtype` auto is bfloat16 on a GPU and float32 without one, as for the
        transformers engine.

        Raises:
            MissingError: vLLM is not installed. InputError: no model, or one that vLLM
                cannot run.
            WorkError: it did not start; the message has the limits in force.
        """

        from alignkit import models

        limits = limits or Limits()
        tokenizer = models.load_tokenizer(model, revision)
        source = Path(models.resolve(model, revision))
        options: dict[str, Any] = {"model": str(source), "revision": revision}
        adapter = (source / "adapter_config.json").is_file() and not (
            source / "config.json"
        ).is_file()
        if adapter:
            base, rank = lora_settings(source)
            options = {
                "model": models.resolve(base),
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": rank,
            }
        if dtype == "auto":
            dtype = "bfloat16" if cuda_available() else "float32"
        llm = start_llm(
            **options,
            dtype=dtype,
            enable_prefix_caching=prefix_caching,
            **limits.given(),
        )
        folder = source if adapter else None
        return cls(
            llm, tokenizer, name=model, limits=limits, adapter=folder, owned=True
        )

    def generate(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        on_done: OnDone | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        With a seed, a completion depends on the seed, its prompt and its sample number,
        not on the prompts beside it (but for rounding).
        """
        mode = self._llm.llm_engine.model_config.logprobs_mode
        if sampling.logprobs and mode != "raw_logprobs":
            raise InputError(
                f"this vLLM was started with logprobs_mode={mode}; untempered log-probs"
                " need raw_logprobs"
            )
        encoded = self._prompts.encode(prompts)
        self._prompts.check_context(enumerate(encoded), 1)
        results: list[list[Completion]] = [[] for _ in prompts]
        seen: Counter[tuple[int, ...]] = Counter()
        requests = []
        for ids in encoded:
            seed = None
            # Seeded requests are drawn one by one, which is slower; without a seed they
            # would take from the stream of the rollouts.
            if sampling.seed is not None:
                key = tuple(ids)
                source = random.Random(f"{sampling.seed} {seen[key]} {key}")
                seed = source.getrandbits(48)
                seen[key] += 1
            params = _sampling_params(sampling, seed, self._prompts.tokenizer)
            requests.append((ids, params))

        def done(index: int, output: RequestOutput) -> None:
            completions = [_completion(one) for one in output.outputs]
            # greedy ones are generated once
            results[index] = completions * (sampling.n // len(completions))
            if on_done is not None:
                on_done(index, results[index])

        self._run(requests, done)
        return results

    def loglikelihoods(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[list[Likelihood]]:
        """See `Engine.loglikelihoods`; choices of one token each are read off the
        prompt's next-token distribution.
        """
        from vllm import SamplingParams

        results = [[Likelihood(0.0, None)] * len(choices) for _, choices in requests]
        # a seed of their own, lest they take from the stream of the rollouts
        greedy = functools.partial(
            SamplingParams, max_tokens=1, temperature=0.0, seed=0
        )
        jobs: list[tuple[list[int], SamplingParams]] = []
        # per job: (request, choice, its tokens)
        targets: list[list[tuple[int, int, list[int]]]] = []
        encoded = self._prompts.continuations(requests)
        for request, choices, ids, continuations in encoded:
            answers = [
                (request, choice, tokens)
                for choice, tokens in zip(choices, continuations, strict=True)
            ]
            if all(len(tokens) == 1 for tokens in continuations):
                single = [tokens[0] for tokens in continuations]
                jobs.append((ids, greedy(logprob_token_ids=single)))
                targets.append(answers)
                continue
            for answer in answers:
                jobs.append(([*ids, answer[2][-1]], greedy(prompt_logprobs=0)))
                targets.append([answer])
        self._prompts.check_context(
            ((job[0][0], ids) for job, (ids, _) in zip(targets, jobs, strict=True)), 1
        )

        def done(index: int, output: RequestOutput) -> None:
            for request, choice, tokens in targets[index]:
                logprobs = output.outputs[0].logprobs
                # of tokens that were asked for vLLM gives no ranks in the vocabulary
                likeliest = list(output.outputs[0].token_ids) == tokens
                if logprobs is None:
                    logprobs = output.prompt_logprobs[-len(tokens) :]
                    ranked = zip(logprobs, tokens, strict=True)
                    likeliest = all(at[token].rank == 1 for at, token in ranked)
                pairs = zip(logprobs, tokens, strict=True)
                total = sum(at[token].logprob for at, token in pairs)
                results[request][choice] = Likelihood(total, likeliest)

        self._run(jobs, done)
        return results

    def close(self) -> None:
        """Stop vLLM and give its memory back, if this engine started it."""
        if self._owned:
            self._owned = False
            stop_llm(self._llm)
        self._llm = None

    def _run(
        self,
        requests: Sequence[tuple[list[int], SamplingParams]],
        done: Callable[[int, RequestOutput], None],
    ) -> None:
        """Put all requests in and call `done(index, output)` as each ends; on an error
        the others are taken out.
        """
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        engine = self._llm.llm_engine
        waiting: dict[str, int] = {}
        failed = "vLLM stopped while generating"
        try:
            with explained(self.limits, failed):
                for index, (ids, params) in enumerate(requests):
                    self._requests += 1
                    params.output_kind = RequestOutputKind.FINAL_ONLY
                    name = f"align-{self._requests}"
                    engine.add_request(
                        name, tokens_input(ids), params, lora_request=self._adapter
                    )
                    waiting[name] = index
            while waiting:
                with explained(self.limits, failed):
                    outputs = engine.step()
                for output in outputs:
                    if output.finished:
                        done(waiting.pop(output.request_id), output)
        finally:
            if waiting:
                engine.abort_request(list(waiting))


def _sampling_params(
    sampling: Sampling, seed: int | None, tokenizer: PreTrainedTokenizerBase
) -> SamplingParams:
    """`vllm.SamplingParams` for one prompt: every option one to one."""
    from vllm import SamplingParams

    tokens, stops = special_stops(tokenizer, sampling.stop)
    return SamplingParams(
        **{**sampling.named("vllm"), "stop": stops},
        stop_token_ids=tokens,
        # vLLM refuses several greedy ones
        n=sampling.n if sampling.temperature > 0 else 1,
        include_stop_str_in_output=True,
        seed=seed,
        logprobs=0 if sampling.logprobs else None,
    )


def _completion(output: CompletionOutput) -> Completion:
    if output.finish_reason not in ("stop", "length"):
        raise WorkError(
            f"vLLM ended a completion for an unknown reason: {output.finish_reason}"
        )
    ids = tuple(output.token_ids)
    logprobs = None
    if output.logprobs is not None:
        logprobs = tuple(
            at[token].logprob for at, token in zip(output.logprobs, ids, strict=True)
        )
    return Completion(output.text, output.finish_reason, len(ids), ids, logprobs)


def check_same_tokenizer(
    theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase, model: str
) -> None:
    """vLLM looks for stop strings in what its own tokenizer decodes, so that must be
    the saved one.
    """
    for token in range(min(len(ours), 1000)):
        if theirs.decode([token], skip_special_tokens=True) != ours.decode(
            [token], skip_special_tokens=True
        ):
            raise InputError(foreign_tokenizer(model, f"token {token} differs"))
