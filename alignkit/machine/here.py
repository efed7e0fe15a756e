"""What this machine is, as manifests and summaries record it: versions, hardware, the
state of the checkout.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
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
    outside one, or where it cannot be told.

    The checkout may be a stranger's, and its configuration may name programs (a file
    monitor, filters, a remote to fetch from) that `git status` would run. So only its
    objects and its index are read, through a git folder without configuration.
    """
    asked = ("HEAD", "--show-toplevel", "--absolute-git-dir", "--git-common-dir")
    try:
        said = _git(folder, {}, "rev-parse", *asked)
        commit, tree, own, common = said.splitlines()
        shared = folder / common
        with tempfile.TemporaryDirectory() as made:
            for name in ("refs", "objects", "info"):
                (Path(made) / name).mkdir()
            (Path(made) / "HEAD").write_text(commit)
            ignored = shared / "info" / "exclude"
            if ignored.is_file():
                shutil.copy(ignored, Path(made) / "info")
            status = _git(
                Path(tree),
                {
                    "GIT_DIR": made,
                    "GIT_WORK_TREE": tree,
                    "GIT_INDEX_FILE": str(Path(own) / "index"),
                    "GIT_OBJECT_DIRECTORY": str(shared / "objects"),
                    "GIT_OPTIONAL_LOCKS": "0",
                },
                *("-c", "core.fsmonitor=false"),
                *("status", "--porcelain", "--ignore-submodules=all"),
            )
        return {"commit": commit, "changed": bool(status)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _git(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        text=True,
        timeout=10,
    )
    return done.stdout


def hardware() -> dict[str, Any]:
    """Processor, memory and GPUs, as the manifest records them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "gpus": gpus.computing(),
    }
