"""TRL's generation with vLLM, with weights that arrive on every build of vLLM and are
proven to have arrived.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from alignkit.engines.stopping import special_stops
from alignkit.engines.vllm_start import Limits, explained, prepare_vllm
from alignkit.engines.weights import (
    Sums,
    checkpoint_name,
    named_weights,
    read_back,
    reload_weights,
    sums,
)
from alignkit.errors import InputError, MissingError, asks_for
from alignkit.machine.swap import swapped
from alignkit.proofs import sync
from alignkit.run import deadlines

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def _with_stop_tokens(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's `generation_kwargs`, with stop strings that are special tokens as tokens:
    vLLM looks for strings in a text without them.
    """
    options = dict(keywords.get("generation_kwargs") or {})
    if options.get("stop"):
        tokenizer = keywords["processing_class"]
        tokens, options["stop"] = special_stops(tokenizer, options["stop"])
        options["stop_token_ids"] = [*options.get("stop_token_ids", ()), *tokens]
    return options


class SyncedGeneration(VLLMGeneration):
    """TRL's `VLLMGeneration`, whose weights are compared with the trainer's after each
    synchronisation.

    vLLM's log-probs of its own first samples are set against the trainer's; a mean
    difference above `tolerance` (nats per token) stops the run. `difference` holds
    (mean, largest) of the last comparison until it is read. `trainer`: settings for the
    message when memory does not suffice. `seed`: of the rollouts.
    """

    max_completion_length: int  # TRL's
    generation_kwargs: dict[str, Any]  # TRL's

    def __init__(
        self,
        *args: Any,
        tolerance: float | None,
        trainer: str,
        seed: int,
        **kwargs: Any,
    ) -> None:
        self.tolerance = tolerance
        self.seed = seed
        self.trainer = trainer
        self.difference: tuple[float, float] | None = None
        self.noise: float | None = None  # what equal weights differ by
        self.compared = 0  # tensors that were read back after the last sync
        self.proven = False
        if kwargs.get("logprobs") is None:
            # RLOO asks for none; the proof needs those of the sampled tokens
            kwargs["logprobs"] = 0
        kwargs["generation_kwargs"] = _with_stop_tokens(kwargs)
        super().__init__(*args, **kwargs)
        foreign = sync.foreign(self.generation_kwargs)
        foreign += ["structured_outputs_regex"] if self.structured_outputs_regex else []
        foreign += ["repetition_penalty"] if self.repetition_penalty != 1 else []
        self.comparable = not foreign
        if foreign:
            log.warning(
                "the sync of vLLM's weights cannot be proven under %s",
                ", ".join(foreign),
            )

    def _init_vllm(self) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise asks_for("vllm", "vllm", "generation.engine: vllm")
        if self.mode == "server":
            self._connect()
            return
        gpu = prepare_vllm()
        self.dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(
            self.accelerator.mixed_precision,
            str(self.model.dtype).removeprefix("torch."),
        )
        # TRL leaves these to vLLM, which would take half precision for a float32 model
        # and compile on a CPU.
        options = (
            {"dtype": self.dtype}
            if gpu
            else {"dtype": self.dtype, "enforce_eager": True}
        )
        limits = Limits(
            self.gpu_memory_utilization,
            self.max_model_length,
            self.max_num_seqs,
            self.tensor_parallel_size,
        )
        stock = vllm_generation.LLM

        def start(**given: Any) -> Any:
            # vLLM seeds the whole process. TRL counts its seeds from 0, so every run
            # would draw the same noise.
            return stock(**given | options | {"seed": self.seed + given["seed"]})

        with (
            swapped(vllm_generation, "LLM", start),
            explained(limits, "vLLM did not start for rollouts", self.trainer),
        ):
            super()._init_vllm()
        from alignkit.engines.vllm import check_same_tokenizer

        check_same_tokenizer(
            self.llm.get_tokenizer(), self.processing_class, self.model.name_or_path
        )

    def _connect(self) -> None:
        self.dtype = "bfloat16"
        url = self.server_base_url or f"http://{self.server_host}:{self.server_port}"
        try:
            super()._init_vllm()
        except ConnectionError as error:
            raise MissingError(
                f"there is no vLLM server for rollouts at {url}. Start it:"
                " VLLM_SERVER_DEV_MODE=1 vllm serve "
                f'{self.model.name_or_path} --weight-transfer-config \'{{"backend":'
                ' "nccl"}\' '
                "--logprobs-mode processed_logprobs"
            ) from error
        if self.accelerator.is_main_process:
            mode = self.vllm_client.get_server_info()["model_config"]["logprobs_mode"]
            if mode != "processed_logprobs":
                raise InputError(
                    f"the vLLM server at {url} runs with --logprobs-mode {mode}: its"
                    " log-probs cannot be compared with the trainer's; restart it with"
                    " --logprobs-mode processed_logprobs"
                )

    def _fix_param_name_to_vllm(
        self, name: str, extra_prefixes: list[str] | None = None
    ) -> str:
        return checkpoint_name(super()._fix_param_name_to_vllm(name, extra_prefixes))

    def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
        if self._dist.is_fsdp or self._dist.is_zero3:
            return super()._iter_named_params()
        return named_weights(self.model)

    @property
    def asleep(self) -> bool:
        """Whether sleep mode has dropped the weights."""
        return self.mode == "colocate" and self._llm_weights_sleeping

    def sync_weights(self) -> None:
        """Give vLLM the trainer's weights; every process must call it."""
        with deadlines.phase("sync"):
            self._sync()

    def _sync(self) -> None:
        self.proven = False
        if self.mode == "server":
            super().sync_weights()
            return
        if self.asleep:
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False
        handed: dict[str, Sums] = {}
        reload_weights(self.llm, self._summed(handed))
        if self.tensor_parallel_size == 1:
            self.compared, wrong = sync.unequal(handed, *read_back(self.llm))
            sync.require_arrived(wrong)

    def _summed(self, handed: dict[str, Sums]) -> Iterator[tuple[str, Tensor]]:
        """The weights, each noted as it is handed over in vLLM's dtype."""
        dtype = getattr(torch, self.dtype)
        for name, weight in self._iter_named_params():
            handed[name] = sums(weight.to(dtype))
            yield name, weight

    def generate(self, prompts: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """As TRL's; the first completions after a synchronisation are compared with the
        trainer.
        """
        generated = super().generate(prompts, *args, **kwargs)
        if not self.proven and self.comparable:
            _, completions, logprobs, _ = generated
            self._prove(prompts, completions, logprobs)
        return generated

    def prove(self) -> None:
        """Compare now, on a few completions of nothing but the end token."""
        length, options = self.max_completion_length, self.generation_kwargs
        self.max_completion_length = min(32 + options.get("min_tokens", 0), length)
        # not from the stream of the rollouts
        self.generation_kwargs = {**options, "seed": self.seed}
        try:
            # vLLM draws from the process's stream for seeded requests too
            with torch.random.fork_rng():
                end = self.processing_class.eos_token_id
                self.generate([[end]] * sync.PROBES, None, 1)
        finally:
            self.max_completion_length, self.generation_kwargs = length, options

    def _prove(
        self, prompts: Sequence[list[int]], completions: Any, logprobs: Any
    ) -> None:
        gaps = [torch.zeros(0, device=self.accelerator.device)]
        for row in range(0, len(prompts), max(1, len(prompts) // sync.PROBES)):
            tokens = list(completions[row][: sync.PROBE_TOKENS])
            # None where vLLM could not score the token
            reported = [at[0] for at in logprobs[row][: len(tokens)]]
            ours = self._score(prompts[row], tokens)
            gaps.append(sync.gaps(ours, reported))
        local = sync.summed(torch.cat(gaps))
        compared = sync.compared(self.accelerator.gather(local[None]))
        if compared is None:
            return
        self.difference = compared
        self.proven = True
        allowed = sync.tolerance(self.dtype, self.tolerance, self.noise)
        sync.require_same(*compared, allowed)
        if self.noise is None:
            self.noise = compared[0]

    def _ends(self) -> list[int]:
        """Tokens that end a completion."""
        known = self.model.generation_config.eos_token_id
        ends = {
            self.processing_class.eos_token_id,
            *([known] if isinstance(known, int) else known or []),
        }
        return [*ends, *self.generation_kwargs.get("stop_token_ids", ())]

    @torch.no_grad()
    def _score(self, prompt: list[int], tokens: list[int]) -> Tensor:
        """(T,) log-probs of `tokens` after `prompt` as vLLM draws them: tempered, cut
        by top-k, top-p and min-p.
        """
        ids = torch.tensor([[*prompt, *tokens]], device=self.accelerator.device)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()  # dropout is for training only
        try:
            with self.accelerator.autocast():
                logits = self.model(
                    input_ids=ids, use_cache=False, logits_to_keep=len(tokens) + 1
                ).logits
        finally:
            for module in training:
                module.training = True
        return sync.drawn_logprobs(
            logits[0, -len(tokens) - 1 : -1],
            ids,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p or 0.0,
            # as vLLM does
            shielded=self.generation_kwargs.get("min_tokens", 0),
            ends=self._ends(),
        )
