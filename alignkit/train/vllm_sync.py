"""TRL's generation with vLLM, with weights that arrive on every build of vLLM and are
proven to have arrived.

Two mixed-in layers over TRL: `SyncedGeneration` replaces `VLLMGeneration` inside a
trainer, `SyncedRollouts` puts it there. Shapes: T tokens of one completion, V
vocabulary.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import trl
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from alignkit.engines.vllm_start import Limits, explained, prepare_vllm
from alignkit.engines.weights import checkpoint_name, named_weights, reload_weights
from alignkit.errors import InputError, MissingError, WorkError, asks_for

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.engines.base import Engine

log = logging.getLogger(__name__)

PROBES = 4  # completions compared after each synchronisation
PROBE_TOKENS = 256  # of each, at most
# Options of SamplingParams that leave the distribution of the compared tokens as it is.
_NEUTRAL = {
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "min_tokens",
    "max_tokens",
    "seed",
    "detokenize",
}
# Mean difference in nats per token. Rounding alone gives about 1e-6 in float32 and 0.01
# to 0.03 in bfloat16.
_TOLERANCE = {"float32": 0.005, "bfloat16": 0.1, "float16": 0.1}


class SyncedGeneration(VLLMGeneration):
    """TRL's `VLLMGeneration`, whose weights are compared with the trainer's after each
    synchronisation.

    vLLM's log-probs of its own first samples are set against the trainer's; a mean
    difference above `tolerance` (nats per token) stops the run. `difference` holds
    (mean, largest) of the last comparison until it is read. `trainer`: settings for the
    message when memory does not suffice. `seed`: of the rollouts.
    """

    max_completion_length: int  # TRL's

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
        self.proven = False
        if kwargs.get("logprobs") is None:
            # RLOO asks for none; the proof needs those of the sampled tokens
            kwargs["logprobs"] = 0
        super().__init__(*args, **kwargs)
        foreign = sorted(self.generation_kwargs.keys() - _NEUTRAL)
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

        vllm_generation.LLM = start
        try:
            with explained(limits, "vLLM did not start for rollouts", self.trainer):
                super()._init_vllm()
        finally:
            vllm_generation.LLM = stock
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
        self.proven = False
        if self.mode == "server":
            super().sync_weights()
            return
        if self.asleep:
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False
        reload_weights(self.llm, self._iter_named_params())

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
        length = self.max_completion_length
        self.max_completion_length = min(
            32 + self.generation_kwargs.get("min_tokens", 0), length
        )
        try:
            self.generate([[self.processing_class.eos_token_id]] * PROBES, None, 1)
        finally:
            self.max_completion_length = length

    def _prove(
        self, prompts: Sequence[list[int]], completions: Any, logprobs: Any
    ) -> None:
        gaps = []
        for row in range(0, len(prompts), max(1, len(prompts) // PROBES)):
            tokens = list(completions[row][:PROBE_TOKENS])
            # None where vLLM could not score the token
            reported = [at[0] for at in logprobs[row][: len(tokens)]]
            known = [
                place for place in range(len(tokens)) if reported[place] is not None
            ]
            if known:
                theirs = torch.tensor(
                    [reported[place] for place in known], device=self.accelerator.device
                )
                gaps.append((self._score(prompts[row], tokens)[known] - theirs).abs())
        gap = (
            torch.cat(gaps) if gaps else torch.zeros(0, device=self.accelerator.device)
        )
        # at the edge of top-p one side may drop a token that the other keeps
        gap = gap[gap.isfinite()]
        local = torch.stack(
            [gap.sum(), gap.new_tensor(len(gap)), gap.max() if len(gap) else gap.sum()]
        )
        everyone = self.accelerator.gather(local[None])  # (processes, 3)
        count = everyone[:, 1].sum().item()
        if not count:
            return
        mean, largest = everyone[:, 0].sum().item() / count, everyone[:, 2].max().item()
        self.difference = (mean, largest)
        self.proven = True
        tolerance = _TOLERANCE[self.dtype] if self.tolerance is None else self.tolerance
        if mean > tolerance:
            raise WorkError(
                "the rollouts do not come from the current weights: the log-probs that"
                " vLLM reports for its own samples differ from the trainer's by"
                f" {mean:.4g} nats per token (largest {largest:.4g}, tolerance"
                f" {tolerance:.4g}), so the weights did not arrive in vLLM"
            )

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
        from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

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
        logits = logits[0, -len(tokens) - 1 : -1].float() / self.temperature  # (T, V)
        # as vLLM does
        logits[: self.generation_kwargs.get("min_tokens", 0), self._ends()] = -torch.inf
        if self.min_p:
            logits = MinPLogitsWarper(self.min_p)(ids, logits)
        if self.top_k > 0:
            logits = TopKLogitsWarper(self.top_k)(ids, logits)
        if self.top_p < 1:
            logits = TopPLogitsWarper(self.top_p)(ids, logits)
        return (
            logits.log_softmax(-1).gather(-1, ids[0, -len(tokens) :, None]).squeeze(-1)
        )


class SyncedRollouts:
    """Mixed in before TRL's GRPOTrainer or RLOOTrainer: its vLLM is a
    `SyncedGeneration`.

    Takes one more keyword: `sync_tolerance`, None for the default of the dtype.
    """

    # Of the trainer that a subclass brings in.
    _metrics: dict[str, Any]
    model: Any
    use_vllm: bool
    vllm_generation: Any

    def __init__(
        self, *args: Any, sync_tolerance: float | None = None, **kwargs: Any
    ) -> None:
        home: Any = sys.modules[
            next(
                c.__module__
                for c in type(self).__mro__
                if c.__module__.startswith("trl.")
            )
        ]
        settings = kwargs.get("args")
        named = (
            "per_device_train_batch_size",
            "gradient_checkpointing",
            "vllm_enable_sleep_mode",
        )
        shown = (
            ", ".join(f"{name}={vars(settings)[name]}" for name in named)
            if settings is not None
            else ""
        )
        seed = 0 if settings is None else settings.seed
        home.VLLMGeneration = functools.partial(
            SyncedGeneration, tolerance=sync_tolerance, trainer=shown, seed=seed
        )
        try:
            super().__init__(*args, **kwargs)
        finally:
            home.VLLMGeneration = VLLMGeneration
        if self.use_vllm and not isinstance(self.vllm_generation, SyncedGeneration):
            raise WorkError(
                f"TRL {trl.__version__} makes its vLLM in another place, so the sync"
                " could not be proven; install the tested version (see"
                " constraints.txt)"
            )

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        generated = super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]
        if self.use_vllm and self.vllm_generation.difference is not None:
            metrics = self._metrics["train" if self.model.training else "eval"]
            mean, largest = self.vllm_generation.difference
            metrics["sync_difference/mean"].append(mean)
            metrics["sync_difference/max"].append(largest)
            self.vllm_generation.difference = None
        return generated


@contextmanager
def trainer_engine(trainer: Any, name: str) -> Iterator[Engine]:
    """The vLLM that a trainer generates with, as an engine for evals: current weights,
    proven, no second copy.

    Every process must enter it. `name` is how provenance calls the model.
    """
    generation = trainer.vllm_generation
    # Always: at the end of training the best weights may be put back
    # (load_best_model_at_end) within the same step.
    generation.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step
    if not generation.proven and generation.comparable:
        generation.prove()
        if generation.asleep:
            generation.sync_weights()
    if generation.mode == "server":
        from alignkit.engines.openai import OpenAIEngine

        client = generation.vllm_client
        yield OpenAIEngine(client.model, f"{client.base_url}/v1", server="vllm")
        return
    from alignkit.engines.vllm import VLLMEngine

    if generation.enable_sleep_mode:
        generation.llm.wake_up(tags=["kv_cache"])
    try:
        limits = Limits(
            generation.gpu_memory_utilization, None, generation.max_num_seqs
        )
        yield VLLMEngine(
            generation.llm, generation.processing_class, name=name, limits=limits
        )
    finally:
        if generation.enable_sleep_mode:
            generation.llm.sleep(level=2)
            generation._llm_weights_sleeping = True
