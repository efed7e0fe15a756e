"""What this machine is, as manifests and summaries record it: versions, hardware, the
state of the checkout.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from alignkit.machine import gpus

RECORDED_PACKAGES = (
    *(
        "alignkit",
        "torch",
        "transformers",
        "trl",
        "peft",
        "accelerate",
        "datasets",
        "tokenizers",
    ),
    *("math-verify", "sympy", "vllm", "flash-attn", "alpaca-eval"),
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether the tree is changed, of the checkout that holds `folder`; None
    outside one.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return (
            {"commit": commit, "changed": bool(git("status", "--porcelain"))}
            if commit
            else None
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def hardware() -> dict[str, Any]:
    """Processor, memory and GPUs, as the manifest records them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "gpus": gpus.computing(),
    }
