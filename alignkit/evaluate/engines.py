"""The engine that `align eval` asks for: a model in this process, vLLM, a server of our
own, or an endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignkit import models
from alignkit.engines.base import Engine, local_engine
from alignkit.engines.vllm_start import Limits
from alignkit.errors import InputError
from alignkit.run import Run

Kind = Literal["auto", "transformers", "vllm", "openai"]
# What each way of generating reads, besides the model's name.
READS = {
    "transformers": ("batch_size", "dtype"),
    "vllm": ("dtype", *Limits.__dataclass_fields__),
    "serve": ("dtype", "replicas", "concurrency", *Limits.__dataclass_fields__),
    "openai": ("base_url", "key_variable", "api", "concurrency"),
}


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Where completions come from: `base_url` is an endpoint's, `serve` starts a vLLM
    server. None: not asked for.
    """

    engine: Kind = "auto"
    base_url: str | None = None
    serve: bool = False
    key_variable: str | None = None
    api: Literal["auto", "chat", "completions"] | None = None
    concurrency: int | None = None
    batch_size: int | None = None
    dtype: str | None = None
    replicas: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int | None = None

    def way(self) -> str:
        """Which of `READS` it is."""
        if self.serve:
            return "serve"
        if self.base_url is not None or self.engine == "openai":
            return "openai"
        return local_engine(self.engine)

    def check(self, model: str) -> None:
        """What can be said before anything is loaded.

        Raises:
            InputError: no model of that name, or an option that nothing would read.
        """
        if self.serve and (self.base_url is not None or self.engine == "transformers"):
            raise InputError(
                "--serve starts a vLLM server here: no --base-url and no --engine"
                " transformers beside it"
            )
        if self.engine == "openai" and self.base_url is None and not self.serve:
            raise InputError(
                "the openai engine needs --base-url URL (such as"
                " http://localhost:8000/v1), or --serve"
            )
        if self.base_url is not None and self.engine not in ("auto", "openai"):
            raise InputError(
                f"--base-url is for the openai engine, not for {self.engine}"
            )
        way = self.way()
        for name in dict.fromkeys(name for names in READS.values() for name in names):
            if getattr(self, name) is not None and name not in READS[way]:
                wanted = ", ".join(
                    _SAID[other] for other, names in READS.items() if name in names
                )
                raise InputError(
                    f"--{name.replace('_', '-')} is read with {wanted} only, not with"
                    f" {_SAID[way]}"
                )
        if way != "openai":
            models.resolve(model)

    def check_likelihood(self, name: str) -> None:
        """What can be said before anything is loaded of an eval that compares choices.

        Raises:
            InputError: nothing gives their log-likelihoods.
        """
        if self.way() == "openai" and self.api == "chat":
            raise InputError(
                f"{name} compares log-likelihoods, which the chat API does not give: leave"
                " out --api chat (a completions API that echoes log-probs gives them, such"
                " as vLLM's), or take --engine transformers or vllm"
            )

    def open(
        self, model: str, log: Path, waiting: Callable[[float], None] | None = None
    ) -> Engine:
        """Load the model, or reach the endpoint, or start a server that writes `log`.

        Raises:
            InputError: no model of that name, or options that do not fit. MissingError:
                what is not on this machine.
        """
        self.check(model)
        way, dtype = self.way(), self.dtype or "auto"
        names = Limits.__dataclass_fields__
        limits = Limits(
            **{
                name: getattr(self, name)
                for name in names
                if getattr(self, name) is not None
            }
        )
        if way == "serve":
            from alignkit.engines.serve import ServedEngine, Server

            server = Server.start(
                model,
                log,
                dtype=dtype,
                limits=limits,
                replicas=self.replicas or 1,
                waiting=waiting,
            )
            return ServedEngine(server, concurrency=self.concurrency or 256)
        if self.base_url is not None:
            from alignkit.engines.openai import OpenAIEngine

            concurrency = self.concurrency or 16
            return OpenAIEngine(
                model,
                self.base_url,
                self.key_variable,
                api=self.api or "auto",
                concurrency=concurrency,
            )
        if way == "vllm":
            from alignkit.engines.vllm import VLLMEngine

            return VLLMEngine.start(model, dtype=dtype, limits=limits)
        from alignkit.engines.transformers import TransformersEngine

        loaded = models.load(model, dtype=dtype, for_training=False)
        return TransformersEngine(*loaded, name=model, batch_size=self.batch_size or 32)


_SAID = {
    "transformers": "--engine transformers",
    "vllm": "--engine vllm",
    "serve": "--serve",
    "openai": "--base-url",
}


def slug(model: str) -> str:
    """A folder name for a model."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"


def step_of(model: str) -> int:
    """The last step of a run folder; 0 for any other model."""
    folder = Path(model)
    if not (folder / "manifest.json").is_file():
        return 0
    metrics = Run.open(folder).metrics()
    return int(metrics[-1]["step"]) if metrics else 0
