"""The real trainers on a tiny model and one fixed batch, so that its gradients can be
compared over cuts.

One optimizer step always covers the same eight rows. Weights are float64 and never
move.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig

from alignkit import models
from alignkit.conformance.rows import GROUP, PROMPTS, Row, drift, model, pairs, rows
from alignkit.train.dpo import AlignDPOTrainer
from alignkit.train.objective import Objective
from alignkit.train.policy import AlignGRPOTrainer, AlignRLOOTrainer
from alignkit.train.sft import AlignSFTTrainer

Gradients = dict[str, Tensor]
Fields = dict[str, Any]  # arguments of TRL's classes


@dataclass(frozen=True, slots=True)
class Cut:
    """How the eight rows are cut into microbatches."""

    rows: int
    accumulation: int
    # further fields of the TRL config
    extra: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = "".join(f", {name} {value}" for name, value in self.extra.items())
        return f"{self.accumulation} microbatches of {self.rows}{extra}"


WHOLE = Cut(8, 1)
HARSH = Cut(1, 8, {"pad_to_multiple_of": 32})
CUTS = (Cut(2, 4), Cut(4, 2, {"pad_to_multiple_of": 24}), HARSH)


class _Fixed:
    """Mixed in before a policy trainer: rollouts, rewards and advantages by table,
    log-probs off policy.
    """

    table: list[Row]

    def _generate_single_turn(
        self, prompt_ids: Sequence[Sequence[int]], *_: object
    ) -> object:
        seen: Counter[tuple[int, ...]] = Counter()
        chosen = []
        for ids in prompt_ids:
            matching = [row for row in self.table if row.prompt == list(ids)]
            chosen.append(matching[seen[tuple(ids)]])
            seen[tuple(ids)] += 1
        self.chosen = chosen
        responses = [list(row.response) for row in chosen]
        if isinstance(self, AlignGRPOTrainer):
            return responses, None
        return responses

    def _generate_and_score_completions(self, inputs: object) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        device = output["completion_ids"].device
        output["advantages"] = torch.tensor(
            [row.advantage for row in self.chosen], dtype=torch.float64, device=device
        )
        output["rewards"] = torch.tensor(
            [row.reward for row in self.chosen], dtype=torch.float64, device=device
        )
        with torch.no_grad():
            ids, keep = output["completion_ids"], output["completion_ids"].shape[1]
            logps = self._get_per_token_logps_and_entropies(  # type: ignore[attr-defined]
                self.model,  # type: ignore[attr-defined]
                torch.cat([output["prompt_ids"], ids], dim=1),
                torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
                keep,
            )[0]
        output["old_per_token_logps"] = logps + drift(ids, 0.0)
        output["ref_per_token_logps"] = logps + drift(ids, 2.0)
        return output


class _FixedGRPO(_Fixed, AlignGRPOTrainer):
    pass


class _FixedRLOO(_Fixed, AlignRLOOTrainer):
    pass


_POLICIES = {"grpo": (_FixedGRPO, GRPOConfig), "rloo": (_FixedRLOO, RLOOConfig)}


class _FixedDPO(AlignDPOTrainer):
    """Takes rows that are tokenised already."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset


class _Catch(TrainerCallback):
    """Keeps the gradients the optimizer would use."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters
        self.steps: list[Gradients] = []

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        self.steps.append(
            {name: weight.grad.clone() for name, weight in self.parameters.items()}
        )


class Laboratory:
    """Trainers by method and cut, built once and used for any objective. Use as a
    context manager.
    """

    def __init__(self) -> None:
        self.tokenizer = models.build_tokenizer("digits")
        self.rows = rows(self.tokenizer)
        self._trainers: dict[tuple[str, str], tuple[Any, _Catch]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Laboratory:
        self.folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="alignkit-check-")
        )
        self._stack.enter_context(_quiet())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def gradients(
        self, method: str, objective: Objective | None, cut: Cut
    ) -> Gradients:
        """The gradients of the optimizer step over the eight rows, cut so, by the real
        trainer; without an objective those of TRL's own loss.
        """
        key = (method, f"{cut}{' of TRL' if objective is None else ''}")
        if key not in self._trainers:
            self._trainers[key] = self._make(method, objective, cut)
        trainer, catch = self._trainers[key]
        if objective is not None:
            trainer.objective = objective.settled(method, trainer.args)
        trainer.train()
        return catch.steps.pop()

    def _make(
        self, method: str, objective: Objective | None, cut: Cut
    ) -> tuple[Any, _Catch]:
        common: Fields = {
            "output_dir": self.folder,
            "per_device_train_batch_size": cut.rows,
            "gradient_accumulation_steps": cut.accumulation,
            "max_steps": 1,
            "max_grad_norm": 0.0,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
            "report_to": [],
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            **cut.extra,
        }
        net = model(self.tokenizer)
        still = torch.optim.SGD(net.parameters(), lr=0.0)
        shared: Fields = {
            "model": net,
            "processing_class": self.tokenizer,
            "objective": objective,
            "optimizers": (still, None),
        }
        build = {"sft": self._sft, "dpo": self._dpo}.get(method)
        if build is None:
            build = functools.partial(self._policy, *_POLICIES[method])
        trainer = build(common, shared)
        trainer.remove_callback(PrinterCallback)
        catch = _Catch(dict(net.named_parameters()))
        trainer.add_callback(catch)
        return trainer, catch

    def _sft(self, common: Fields, shared: Fields) -> Any:
        data = [
            {
                "input_ids": row.prompt + row.response,
                "labels": [-100] * len(row.prompt) + row.response,
            }
            for row in self.rows
        ]
        config = SFTConfig(shuffle_dataset=False, **common)
        return AlignSFTTrainer(
            args=config, train_dataset=Dataset.from_list(data), **shared
        )

    def _dpo(self, common: Fields, shared: Fields) -> Any:
        data = [
            {
                "prompt_ids": row.prompt,
                "chosen_ids": row.response,
                "rejected_ids": other.response,
            }
            for row, other in pairs(self.rows)
        ]
        reference = model(self.tokenizer, seed=1)
        config = DPOConfig(**common)
        return _FixedDPO(
            ref_model=reference,
            args=config,
            train_dataset=Dataset.from_list(data),
            **shared,
        )

    def _policy(
        self,
        kind: Callable[..., Any],
        config: Callable[..., Any],
        common: Fields,
        shared: Fields,
    ) -> Any:
        args = config(
            beta=0.0,
            num_generations=GROUP,
            max_completion_length=16,
            mask_truncated_completions=True,
            **common,
        )
        data = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
        trainer = kind(reward_funcs=_no_reward, args=args, train_dataset=data, **shared)
        trainer.table = self.rows
        return trainer


def _no_reward(prompts: Sequence[str], **_: object) -> list[float]:
    """The table has the rewards; TRL wants a function all the same."""
    return [0.0] * len(prompts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and hints of libraries between the lines of a table."""
    before, bars = logging.get_verbosity(), datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if not bars:
            datasets.enable_progress_bars()
