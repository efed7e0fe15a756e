"""Generation and log-likelihoods with a transformers model in this process, also one in
training.

Shapes: B rows of the batch, S tokens put in at once, L tokens seen so far (with left
padding), V vocabulary.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignkit.engines.base import Completion, Likelihood, OnDone, PromptText, Sampling
from alignkit.engines.batching import reading_order
from alignkit.engines.draws import draw, penalized
from alignkit.engines.prompts import PromptCoder
from alignkit.engines.reader import Reader
from alignkit.engines.stopping import StopStrings, special_stops
from alignkit.errors import WorkError
from alignkit.models.shape import context

# finished rows leave the batch once no more than this share of it is still running
COMPACT_BELOW = 7 / 8


@dataclass(slots=True)
class _Row:
    """One completion being generated."""

    prompt: int
    sample: int
    # new tokens at most: what was asked for, or what the context has room for
    limit: int
    uniform: random.Random
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    done: Completion | None = None


class TransformersEngine:
    """Batched generation on a model that the caller owns; it is left as it was found.

    `name` is how provenance calls the model; `batch_size` counts completions.
    """

    name = "transformers"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        batch_size: int = 32,
    ) -> None:
        self.model = name
        self._reader = Reader(model, tokenizer)
        self._batch_size = batch_size
        self._prompts = PromptCoder(tokenizer, name, context(model.config))
        ends = model.generation_config.eos_token_id
        if isinstance(ends, int):
            ends = [ends]
        self._ends = {tokenizer.eos_token_id, *(ends or ())}

    def generate(
        self,
        prompts: Sequence[PromptText],
        sampling: Sampling,
        on_done: OnDone | None = None,
    ) -> list[list[Completion]]:
        """See `Engine.generate`.

        With a seed, a completion depends on the seed, its prompt and its sample number,
        not on the prompts beside it (but for rounding, as padding differs).
        """
        encoded = self._prompts.encode(prompts)
        self._prompts.check_context(enumerate(encoded), 1)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        seen: Counter[tuple[int, ...]] = Counter()
        rows: list[_Row] = []
        for index in reading_order(encoded, max(1, self._batch_size // sampling.n)):
            ids = tuple(encoded[index])
            limit = min(sampling.max_new_tokens, self._prompts.context - len(ids))
            for sample in range(sampling.n):
                source = random.Random(f"{seed} {seen[ids]} {sample} {ids}")
                rows.append(_Row(index, sample, limit, source))
            seen[ids] += 1

        results: list[list[Completion]] = [[] for _ in prompts]
        waiting = {row.prompt: sampling.n for row in rows}
        by_prompt: dict[int, list[_Row]] = {}
        for row in rows:
            by_prompt.setdefault(row.prompt, []).append(row)

        def finished(row: _Row) -> None:
            waiting[row.prompt] -= 1
            if waiting[row.prompt] == 0:
                completed = by_prompt.pop(row.prompt)
                results[row.prompt] = [r.done for r in completed if r.done]
                if on_done is not None:
                    on_done(row.prompt, results[row.prompt])

        with self._reader.inference():
            for start in range(0, len(rows), self._batch_size):
                self._complete(
                    rows[start : start + self._batch_size], encoded, sampling, finished
                )
        return results

    def loglikelihoods(
        self, requests: Sequence[tuple[PromptText, tuple[str, ...]]]
    ) -> list[list[Likelihood]]:
        """See `Engine.loglikelihoods`; choices of one token each are read off a single
        pass over the prompt.
        """
        jobs = self._prompts.continuations(requests)
        self._prompts.check_context(((request, ids) for request, _, ids, _ in jobs), 0)
        results = [[Likelihood(0.0, None)] * len(choices) for _, choices in requests]
        order = reading_order([ids for _, _, ids, _ in jobs], self._batch_size)
        with self._reader.inference():
            for start in range(0, len(jobs), self._batch_size):
                batch = [jobs[k] for k in order[start : start + self._batch_size]]
                width = max(
                    len(c) for _, _, _, continuations in batch for c in continuations
                )
                # (B, width, V)
                logits = self._reader.read([ids for _, _, ids, _ in batch], width)[0]
                logits = logits.float()
                totals = logits.logsumexp(-1)  # (B, width)
                for row, (request, choices, _, continuations) in enumerate(batch):
                    for choice, continuation in zip(
                        choices, continuations, strict=True
                    ):
                        places = list(range(width - len(continuation), width))
                        logps = logits[row, places, continuation] - totals[row, places]
                        likeliest = logits[row, places].argmax(-1).tolist()
                        results[request][choice] = Likelihood(
                            logps.sum().item(), likeliest == continuation
                        )
        return results

    def close(self) -> None:
        """Nothing is held: the model is the caller's."""

    def _complete(
        self,
        rows: list[_Row],
        encoded: list[list[int]],
        sampling: Sampling,
        finished: Callable[[_Row], None],
    ) -> None:
        """Generate one batch; rows leave it as they end."""
        tokens, stops = special_stops(self._prompts.tokenizer, sampling.stop)
        stopping = StopStrings(stops, self._prompts.decode, sampling.min_new_tokens)
        special = set(tokens)
        # each prompt is read once for all its samples
        distinct = list(dict.fromkeys(row.prompt for row in rows))
        logits, mask, cache = self._reader.begin([encoded[p] for p in distinct])
        keep = torch.tensor(
            [distinct.index(row.prompt) for row in rows], device=logits.device
        )
        logits, mask = logits[keep], mask[keep]
        cache.reorder_cache(keep)
        for step in itertools.count():
            scores = last = logits[:, -1].float()
            if sampling.repetition_penalty != 1:
                texts = [encoded[row.prompt] + row.tokens for row in rows]
                scores = penalized(last, texts, sampling.repetition_penalty)
            drawn = self._draw(last, scores, rows, sampling, step)
            ends = self._ends
            if step >= sampling.min_new_tokens:
                ends = ends | special
            for row in rows:
                if row.done is None and (reason := self._ended(row, stopping, ends)):
                    row.done = self._completion(row, reason, stopping)
                    finished(row)
            running = [k for k, row in enumerate(rows) if row.done is None]
            if not running:
                return
            if len(running) <= COMPACT_BELOW * len(rows):
                rows = [rows[k] for k in running]
                keep = torch.tensor(running, device=logits.device)
                drawn, mask = drawn[keep], mask[keep]
                cache.reorder_cache(keep)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._reader.forward(drawn[:, None], mask, cache)

    def _draw(
        self,
        logits: Tensor,
        scores: Tensor,
        rows: list[_Row],
        sampling: Sampling,
        step: int,
    ) -> Tensor:
        """Draw the next token (B,) of every row from scores (B, V), and note it with
        its log-prob under the model's own logits (B, V).
        """
        total = logits.logsumexp(-1) if sampling.logprobs else None
        if step < sampling.min_new_tokens:
            scores[:, list(self._ends)] = -torch.inf
        if sampling.temperature == 0:
            tokens = scores.argmax(-1)
        else:
            uniform = torch.tensor(
                [row.uniform.getrandbits(32) / 2**32 for row in rows],
                dtype=torch.float64,
            )
            tokens = draw(scores, sampling, uniform.to(logits.device))
        chosen = logits.gather(-1, tokens[:, None]).squeeze(-1)
        if chosen.isnan().any():
            raise WorkError(
                f"{self.model}: the output is not a number at token"
                f" {len(rows[0].tokens)}: it has diverged"
            )
        logps = [None] * len(rows) if total is None else (chosen - total).tolist()
        for row, token, logp in zip(rows, tokens.tolist(), logps, strict=True):
            if row.done is None:
                row.tokens.append(token)
                if logp is not None:
                    row.logprobs.append(logp)
        return tokens

    def _ended(self, row: _Row, stopping: StopStrings, ends: set[int]) -> str:
        """`stop` or `length` when the row ends with its newest token, else nothing."""
        count = len(row.tokens)
        if row.tokens[-1] in ends:
            return "stop"
        if stopping.ended(row.tokens[-stopping.window(count) :], count):
            return "stop"
        return "length" if count >= row.limit else ""

    def _completion(self, row: _Row, reason: str, stopping: StopStrings) -> Completion:
        return Completion(
            stopping.text(row.tokens),
            reason,
            len(row.tokens),
            tuple(row.tokens),
            tuple(row.logprobs) or None,
        )
