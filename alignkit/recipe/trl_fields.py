"""The fields of TRL's, PEFT's and transformers' config classes, as the installed
classes state them.

Importing the classes takes over five seconds, so a child process does it once for each
set of versions (trl_classes.py), and its answer is kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from alignkit import json_text
from alignkit.errors import MissingError
from alignkit.recipe import trl_classes
from alignkit.run.files import atomic_write
from alignkit.terminal import echo

# The class that holds the `train` fields of a method. A further method is a line more.
CONFIGS = {
    "sft": "trl.SFTConfig",
    "grpo": "trl.GRPOConfig",
    "rloo": "trl.RLOOConfig",
    "dpo": "trl.DPOConfig",
    "expert_iteration": "trl.SFTConfig",
}
LORA, PEFT_BASE = "peft.LoraConfig", "peft.PeftConfig"
QUANTIZE = "transformers.BitsAndBytesConfig"
BATCHING = "transformers.generation.ContinuousBatchingConfig"
CLASSES = (
    *dict.fromkeys(CONFIGS.values()),
    *(LORA, PEFT_BASE, QUANTIZE, BATCHING),
)
# Whose classes are read, or who decides what those hold (torch: the optimizer).
PACKAGES = ("trl", "transformers", "peft", "accelerate", "torch")
LARGEST = 20_000_000  # bytes of a cache file; a real one has some 300,000


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a config class."""

    name: str
    schema: Mapping[str, Any]  # JSON Schema of what a recipe may state
    default: Any  # {} or [] where a factory makes it
    help: str
    choices_in_help: bool  # the class states its choices in the help text only

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are taken as text or in a list; () where any text will do."""
        arms = [self.schema, *self.schema.get("anyOf", ())]
        listed = [arm.get("items", {}) for arm in arms]
        words = [word for arm in (*arms, *listed) for word in arm.get("enum", ())]
        return tuple(dict.fromkeys(word for word in words if isinstance(word, str)))


def fields(config: str) -> dict[str, Field]:
    """The fields of a class, by name.

    Raises:
        MissingError: a package is not installed, or its classes cannot be imported.
    """
    return _all_fields()[config]


@functools.cache
def _all_fields() -> dict[str, dict[str, Field]]:
    identity = _identity()
    name = f"fields-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
    for folder in _folders():
        known = _load(folder / name)
        if known is not None:
            return known
    text = _ask_classes()
    # A file says by its first line that the rest is whole.
    content = f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"
    for folder in _folders():
        with contextlib.suppress(MissingError):
            atomic_write(folder / name, content)
            break
    return _parsed(text)


def _identity() -> str:
    """What decides the answer: versions, interpreter, the reader itself, the classes."""
    try:
        versions = {package: metadata.version(package) for package in PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise MissingError(
            f"the package '{error.name}' is not installed: pip install alignkit"
        ) from error
    reader = hashlib.sha256(Path(trl_classes.__file__).read_bytes()).hexdigest()
    return json.dumps([versions, sys.version, sys.prefix, reader, CLASSES])


def _folders() -> Iterator[Path]:
    """Where answers are kept: in the user's cache folder, else in a folder of the
    user's own among the temporary ones.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if stated.is_absolute():
        yield stated / "alignkit"
    else:
        with contextlib.suppress(RuntimeError):  # no home at all
            yield Path.home() / ".cache" / "alignkit"
    shared = Path(tempfile.gettempdir()) / f"alignkit-{os.getuid()}"
    with contextlib.suppress(OSError):
        shared.mkdir(mode=0o700, exist_ok=True)
        status = shared.lstat()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
        if private and status.st_uid == os.getuid():
            yield shared


def _load(file: Path) -> dict[str, dict[str, Field]] | None:
    """A kept answer; None where there is none, or it is damaged, or another's."""
    try:
        status = file.stat()
        ours = stat.S_ISREG(status.st_mode) and status.st_uid in (os.getuid(), 0)
        if not ours or status.st_size > LARGEST:
            return None
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
        if checksum != hashlib.sha256(text.encode()).hexdigest():
            return None
        return _parsed(text)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _parsed(text: str) -> dict[str, dict[str, Field]]:
    answer = json_text.load(text)
    return {
        config: {name: Field(name, **record) for name, record in answer[config].items()}
        for config in CLASSES
    }


def _ask_classes() -> str:
    """What the child prints. It imports nothing from the current directory (-P)."""
    if sys.stderr.isatty():
        version = metadata.version("trl")
        echo(f"Reading the settings of TRL {version}, once: some seconds.", err=True)
    script = str(Path(trl_classes.__file__))
    done = subprocess.run(
        [sys.executable, "-P", script, *CLASSES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[
            -1
        ]
        raise MissingError(
            f"the settings of TRL and PEFT cannot be read: {last}; see align doctor"
        )
    return done.stdout
