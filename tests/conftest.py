"""Shared fixtures."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("ALIGN_MOUNTS", None)  # of the process that hands out the tests

from pathlib import Path

import pytest

from alignkit import kits

# A shell's background job has Ctrl-C ignored, what nohup starts a hangup, and so would
# every process that a test starts and signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
kits.mount(kits.builtin())
MOUNTS = os.environ["ALIGN_MOUNTS"]
BUILTIN = f"{kits.__name__}.{kits.BUILTIN}"
OLD = Path(__file__).parent / "data" / "v01"
OLD_TIME = 1_750_000_000  # of the files there: 0.1 knew a model by its files' times


@pytest.fixture
def align_data() -> Path:
    """The folder of real benchmarks and model outputs; the test is skipped where there
    is none.
    """
    folder = os.environ.get("ALIGN_DATA")
    if not folder:
        pytest.skip(
            "ALIGN_DATA is not set: real benchmark files are not part of the repository"
        )
    return Path(folder).resolve()


@pytest.fixture
def old_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Copies something that alignkit 0.1 left (tests/data/v01), as if made on this
    machine.

    All copies lie beside each other. A run that has not ended has a process id that no
    process can have.
    """
    places = {
        b"{root}": tmp_path,
        b"{kit}": kits.builtin().root,
        b"{python}": sys.prefix,
        b"{host}": platform.node(),
    }

    def copy(name: str) -> Path:
        source, target = OLD / name, tmp_path / name
        if source.is_file():
            return Path(shutil.copy(source, target))
        shutil.copytree(source, target)
        for path in target.rglob("*"):
            if path.suffix in (".json", ".jsonl", ".yaml", ".txt", ".log", ".md"):
                content = path.read_bytes()
                for word, place in places.items():
                    content = content.replace(word, str(place).encode())
                path.write_bytes(content)
            os.utime(path, (OLD_TIME, OLD_TIME))
        return target

    return copy


@pytest.fixture(autouse=True)
def _own_mounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kits that a test mounts are not passed on to the next one, nor is a copy of the
    built-in one, whose modules would stand beside those that tests have imported.
    """
    monkeypatch.setenv("ALIGN_MOUNTS", MOUNTS)
    own = sys.modules[BUILTIN]
    modules = {name: m for name, m in sys.modules.items() if name.startswith(BUILTIN)}
    yield
    if sys.modules[BUILTIN] is not own:
        for name in [name for name in sys.modules if name.startswith(BUILTIN)]:
            del sys.modules[name]
        sys.modules.update(modules)


@pytest.fixture(autouse=True)
def _open_logs() -> None:
    """A library's log handler writes to the standard error of the test that imported
    the library, which is closed in the next one.
    """
    for logger in logging.root.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", ()):
            if type(handler) is logging.StreamHandler and handler.stream.closed:
                handler.stream = sys.stderr
                vars(handler).pop("flush", None)  # transformers ties it to the stream
