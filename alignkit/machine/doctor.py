"""What this machine has and lacks, each with the one command that mends it. Nothing
heavy is imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignkit.machine import gpus, hub, versions

ROOM = 20  # GiB; a checkpoint of a 1.5B model with its optimizer takes 18
# Packages that some recipes need: (name, extra, what for).
OPTIONAL = (
    ("vllm", "vllm", "fast generation"),
    ("flash-attn", "flash", "attention: flash_attention_2"),
    ("bitsandbytes", "quantize", "4-bit and 8-bit weights and optimizers"),
    ("liger-kernel", "liger", "TRL's use_liger_kernel"),
    ("alpaca-eval", "alpaca", "AlpacaEval's own report"),
)
KEYS = {"HF_TOKEN": "gated models and data", "WANDB_API_KEY": "track: [wandb]"}

Status = Literal["ok", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `fix` is a command or a short instruction; empty where nothing is
    wrong.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def examine(keys: Mapping[str, str]) -> list[Finding]:
    """Every finding; `keys` are variables that the kits read, each with its purpose."""
    found = [
        _package(package)
        for package in versions.TESTED
        if package not in ("vllm", "alpaca-eval")
    ]
    found += _cuda(gpus.cards(), gpus.driver())
    found += [_optional(*one) for one in OPTIONAL]
    found += _keys({**keys, **KEYS})
    found.append(_hub())
    found += _room()
    return found


def vllm_missing(vllm: Any) -> list[str]:
    """What keeps `generation.engine: vllm` from working here; `vllm` is the recipe's
    `generation.vllm`, or None.
    """
    cards = gpus.cards()
    version = versions.status("vllm")
    if version.fit == "missing":
        gpu = (
            ""
            if cards
            else " on a machine with an NVIDIA GPU (nvidia-smi shows none here)"
        )
        return [
            "generation.engine vllm: vLLM is not installed: pip install"
            f" 'alignkit[vllm]'{gpu}"
        ]
    found = (
        [f"generation.engine vllm: {version.advice}: {_install('vllm')}"]
        if version.fit == "incompatible"
        else []
    )
    if vllm is None:
        return found
    if vllm.sleep and not cards:
        found.append(
            "generation.vllm.sleep: sleep mode needs a GPU, and nvidia-smi shows none;"
            " leave it out"
        )
    if vllm.mode == "server" and not cards:
        found.append(
            "generation.vllm.mode server: TRL sends weights by NCCL, which needs a GPU;"
            " use colocate"
        )
    if cards and vllm.tensor_parallel > len(cards):
        found.append(
            f"generation.vllm.tensor_parallel: {vllm.tensor_parallel} GPUs are asked"
            f" for, {len(cards)} are here"
        )
    return found


def _install(package: str) -> str:
    return f"pip install '{package}=={versions.TESTED[package]}.*'"


def _package(package: str) -> Finding:
    version = versions.status(package)
    name = "Python" if package == "python" else package
    if version.installed is None:
        return Finding(name, "missing", "not installed", _install(package))
    if version.fit == "incompatible":
        return Finding(
            name,
            "missing",
            f"{version.installed}, but {version.advice}",
            _install(package),
        )
    if version.fit == "untested":
        fix = (
            f"python{version.tested} -m venv .venv"
            if package == "python"
            else _install(package)
        )
        return Finding(
            name, "warning", f"{version.installed}; tested: {version.tested}", fix
        )
    return Finding(name, "ok", version.installed)


def _optional(package: str, extra: str, purpose: str) -> Finding:
    version = versions.status(package)
    if version.installed is None:
        return Finding(
            package,
            "missing",
            f"not installed; for {purpose}",
            f"pip install 'alignkit[{extra}]'",
        )
    if version.fit == "ok":
        return Finding(package, "ok", version.installed)
    why = version.advice or f"tested: {version.tested}"
    status: Status = "missing" if version.fit == "incompatible" else "warning"
    return Finding(
        package,
        status,
        f"{version.installed}; {why}",
        f"pip install -U 'alignkit[{extra}]'",
    )


def _cuda(cards: Sequence[gpus.Gpu], driver: str) -> list[Finding]:
    built = _torch_cuda()
    if not cards:
        mini = "align run RECIPE --with recipes/overlays/mini.yaml runs without"
        return [
            Finding(
                "GPU",
                "warning",
                "none (nvidia-smi shows none): full-size recipes need one",
                mini,
            )
        ]
    found = []
    if built is None:
        fix = (
            "pip install --force-reinstall --index-url"
            " https://download.pytorch.org/whl/cu130 'torch==2.13.0'"
        )
        found.append(
            Finding(
                "CUDA",
                "missing",
                "there is a GPU, but torch is built for the CPU only",
                fix,
            )
        )
    elif driver and _numbers(driver) < _numbers(built)[:1]:
        text = f"torch is built for CUDA {built}, the driver runs {driver} at most"
        found.append(
            Finding(
                "CUDA",
                "missing",
                text,
                "update the NVIDIA driver, or install torch for an older CUDA",
            )
        )
    else:
        found.append(
            Finding(
                "CUDA",
                "ok",
                f"torch for CUDA {built}, driver for {driver or 'an unknown version'}",
            )
        )
    for index, card in enumerate(cards):
        text = card.name
        if card.total:
            text += f", {card.used / 1024:.1f} of {card.total / 1024:.1f} GiB in use"
        if card.capability < 8:
            fix = "set model.dtype: float32 and train.bf16: false"
            found.append(
                Finding(f"GPU {index}", "warning", f"{text}; no bfloat16", fix)
            )
        elif card.used > 0.1 * card.total:
            fix = "nvidia-smi shows who holds it"
            found.append(
                Finding(
                    f"GPU {index}",
                    "warning",
                    f"{text}: another process holds memory",
                    fix,
                )
            )
        else:
            found.append(Finding(f"GPU {index}", "ok", text))
    return found


def _torch_cuda() -> str | None:
    """The CUDA version that torch was built for, read from its file without importing
    it.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    built = re.search(r"^cuda[^=\n]*= *'([\d.]+)'", text, re.M)
    return built[1] if built else None


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _keys(wanted: Mapping[str, str]) -> list[Finding]:
    found = []
    for name, purpose in sorted(wanted.items()):
        if os.environ.get(name):
            found.append(Finding(f"key {name}", "ok", "set"))
        else:
            text = f"not set; for {purpose}"
            found.append(Finding(f"key {name}", "missing", text, f"export {name}=…"))
    return found


def _hub() -> Finding:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        return Finding(
            "Hub",
            "warning",
            "offline, as HF_HUB_OFFLINE says: only what is cached",
            "unset HF_HUB_OFFLINE",
        )
    if hub.reachable():
        return Finding("Hub", "ok", "reachable")
    fix = "hf download NAME on a machine with a network, and copy the cache"
    return Finding(
        "Hub", "missing", "cannot be reached: only folders and what is cached", fix
    )


def _room() -> list[Finding]:
    homes = {"disk for runs": Path.cwd(), "disk for the Hub cache": _cache()}
    found = []
    for name, home in homes.items():
        existing = next(p for p in (home, *home.parents) if p.is_dir())
        free = shutil.disk_usage(existing).free / 2**30
        if free < ROOM:
            fix = (
                "hf cache prune"
                if "cache" in name
                else "set output.root to a larger disk"
            )
            found.append(
                Finding(name, "warning", f"{free:.0f} GiB free in {existing}", fix)
            )
        else:
            found.append(Finding(name, "ok", f"{free:.0f} GiB free in {existing}"))
    return found


def _cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
