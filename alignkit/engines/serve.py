"""An OpenAI-compatible vLLM server that align starts, waits for, and stops."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignkit import json_text
from alignkit.endpoint.http import Endpoint
from alignkit.engines.openai import OpenAIEngine
from alignkit.engines.vllm_start import (
    Limits,
    explain,
    foreign_tokenizer,
    lora_settings,
)
from alignkit.errors import AlignError, InputError, WorkError, asks_for
from alignkit.json_text import BadJson
from alignkit.machine.gpus import cuda_available

HOST = "127.0.0.1"
READY_WITHIN = 1800.0  # seconds; loading a large model over a network disk is slow
STOP_WITHIN = 20.0  # seconds between asking to stop and killing
_PR_SET_PDEATHSIG = 1
# The last line of a traceback, plain or in a log line of one of vLLM's processes.
_RAISED = re.compile(
    r"^(?:\([^)]*\) )?(?:ERROR [^\]]*\] )?((?:\w+\.)*\w*(?:Error|Exception): .+(?:\n"
    r" +Value error, .+)?)$",
    re.M,
)


class Server:
    """A running vLLM server. `base_url` ends in /v1; `log` is everything it said."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, model: str, log: Path
    ) -> None:
        self.process = process
        self.base_url = f"http://{HOST}:{port}/v1"
        self.model = model
        self.log = log
        self._stopped = False

    @classmethod
    def start(
        cls,
        model: str,
        log: Path,
        *,
        port: int | None = None,
        dtype: str = "auto",
        limits: Limits | None = None,
        replicas: int = 1,
        waiting: Callable[[float], None] | None = None,
    ) -> Server:
        """Start a server on this machine only and wait until it answers.

        Args:
            model: Hub id, folder, run folder, or folder of a LoRA adapter; the server's
                model name is this very text.
            log: file for the server's output.
            port: None takes a free one.
            replicas: data-parallel copies, one per GPU (times
                `limits.tensor_parallel_size`).
            waiting: called about once a second with the seconds waited.

        Raises:
            MissingError: vLLM is not installed. InputError: the port is taken, or there
                is no such model.
            WorkError: it did not come up; the message has the limits in force.
        """
        if importlib.util.find_spec("vllm") is None:
            raise asks_for("vllm", "vllm", "serving a model")
        limits = limits or Limits()
        port = _free_port(port)
        arguments = _arguments(model, dtype, limits)
        arguments += [
            "--host",
            HOST,
            "--port",
            str(port),
            "--data-parallel-size",
            str(replicas),
        ]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            # A session of its own: its workers are stopped with it, and Ctrl-C in the
            # terminal reaches only align.
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "vllm.entrypoints.openai.api_server",
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        server = cls(process, port, model, log)
        try:
            server._wait(limits, waiting)
            server._check_tokenizer()
        except BaseException:
            server.stop()
            raise
        return server

    def stop(self) -> None:
        """Stop the server and all its workers; twice is harmless."""
        if self._stopped:
            return
        self._stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_WITHIN)
        with contextlib.suppress(ProcessLookupError):
            # workers that outlived it, and whatever refused
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _wait(self, limits: Limits, waiting: Callable[[float], None] | None) -> None:
        started = time.monotonic()
        while (waited := time.monotonic() - started) < READY_WITHIN:
            if self.process.poll() is not None:
                raise self._failure(limits)
            if self._healthy():
                return
            if waiting is not None:
                waiting(waited)
            time.sleep(1.0)
        raise WorkError(
            f"the vLLM server for {self.model} did not answer within {READY_WITHIN:.0f}"
            f" s; see {self.log}"
        )

    def _healthy(self) -> bool:
        answer = self._root().fetch("GET", "/health", within=5)
        return answer is not None and answer[0] == 200

    def _root(self) -> Endpoint:
        return Endpoint(self.base_url.removesuffix("/v1"), model=self.model)

    def _check_tokenizer(self) -> None:
        """The server reads prompts with the tokenizer that it opens, which must be the
        saved one.
        """
        from alignkit import models

        ours = models.load_tokenizer(self.model)
        text = "User: 1+2=?\n" + ours.decode(
            list(range(min(len(ours), 1000))), skip_special_tokens=True
        )
        body = {"model": self.model, "prompt": text}
        answer = self._root().fetch("POST", "/tokenize", body, within=60)
        if answer is None or answer[0] != 200:
            raise WorkError(
                f"the vLLM server for {self.model} does not tokenize; see {self.log}"
            )
        try:
            theirs = json_text.load(answer[1])
        except BadJson as error:
            raise WorkError(
                f"the vLLM server for {self.model} answers /tokenize with {error}; see"
                f" {self.log}"
            ) from error
        if theirs.get("tokens") != ours(text)["input_ids"]:
            raise InputError(foreign_tokenizer(self.model, "a text gets other tokens"))

    def _failure(self, limits: Limits) -> AlignError:
        """Why the server went away, from the end of its log."""
        text = self.log.read_bytes()[-200_000:].decode("utf-8", "replace")
        # The first error of the traceback is the cause; later ones say that a process
        # is gone.
        causes = _RAISED.findall(text)
        lines = [line for line in text.splitlines() if line.strip()]
        code = f"it left with code {self.process.returncode}"
        cause = [*causes[:1], *lines[-1:], code][0]
        return explain(
            RuntimeError(cause[:1000]),
            limits,
            f"the vLLM server for {self.model} did not start ({self.log})",
        )


class ServedEngine(OpenAIEngine):
    """The openai engine on a server of our own, which `close` stops."""

    def __init__(self, server: Server, *, concurrency: int = 64) -> None:
        super().__init__(
            server.model, server.base_url, server="vllm", concurrency=concurrency
        )
        self._server = server

    def close(self) -> None:
        """Stop the server."""
        super().close()
        self._server.stop()


def _arguments(model: str, dtype: str, limits: Limits) -> list[str]:
    from alignkit import models

    gpu = cuda_available()
    source = Path(models.resolve(model))
    served = ["--model", str(source), "--served-model-name", model]
    if (source / "adapter_config.json").is_file() and not (
        source / "config.json"
    ).is_file():
        base, rank = lora_settings(source)
        served = ["--model", models.resolve(base), "--served-model-name", "base"]
        served += ["--enable-lora", "--max-lora-rank", str(rank)]
        served += ["--lora-modules", json.dumps({"name": model, "path": str(source)})]
    if dtype == "auto":
        dtype = "bfloat16" if gpu else "float32"
    # The sampling defaults in a model's generation_config.json are not ours: unset
    # means unset.
    arguments = [*served, "--dtype", dtype, "--generation-config", "vllm"]
    for key, value in limits.given().items():
        arguments += [f"--{key.replace('_', '-')}", str(value)]
    return arguments if gpu else [*arguments, "--enforce-eager"]


def _environment() -> dict[str, str]:
    own: dict[str, Any] = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_LOGGING_LEVEL": "INFO",
    }
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {**defaults, **os.environ, **own}


def _free_port(port: int | None) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used: {error.strerror}; leave it out to take a"
                " free one"
            ) from error
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: be asked to stop when align itself is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
