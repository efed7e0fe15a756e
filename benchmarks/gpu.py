"""What alignkit costs on one GPU beside a stock TRL trainer: seconds, memory, saving.

Random weights in the shape of Qwen2.5-1.5B; nothing is fetched. Of each method alignkit
runs a recipe of gpu_kit/ by its command line, then TRL's own trainer runs with the
settings that the run resolved to, in the same process. The figures are written after
each section; a section that fails is recorded in its place, and the next one goes on.
`--tiny` is a rehearsal of the script itself, on a CPU too; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_kit._bench import SHAPE, TINY_SHAPE, Bench, clean, gib
from gpu_kit._sections import SECTIONS, NotRunError

ROOT = Path(__file__).resolve().parents[1]
START = 60  # seconds that a process may take to import everything
VERSIONS = (
    *("torch", "triton", "transformers", "trl", "accelerate", "peft", "datasets"),
    *("bitsandbytes", "torchao", "flash-attn", "vllm"),
)


def work(
    names: Sequence[str],
    options: argparse.Namespace,
    folder: Path,
    log: Path,
    to: Connection,
) -> None:
    """Send what the machine is, then what each section found.

    Ends early where a section did not give its memory back.
    """
    os.setsid()  # so that all it starts can be ended with it
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    to.send(machine())
    bench = Bench(folder, tiny=options.tiny, tokenizer=options.tokenizer)
    for name in names:
        print(f"\n=== {name}", flush=True)
        started = time.monotonic()
        try:
            bench.prepare()
            found = SECTIONS[name][1](bench)
        except NotRunError as why:
            found = {"not run": str(why)}
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        left = clean()
        seconds = round(time.monotonic() - started, 1)
        to.send({**found, "section_seconds": seconds, "left_gib": left})
        # 3 GiB each; `reload` reads the first.
        for saved in folder.glob("run-[1-9]*/model"):
            shutil.rmtree(saved)
        if left > 1:
            break


def conduct(
    options: argparse.Namespace,
    folder: Path,
    log: Path,
    report: dict[str, Any],
    tell: Callable[[str, dict[str, Any]], None],
) -> None:
    """Have a process do the sections; a new one where it dies, hangs or ends early."""
    context = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + options.seconds
    patience = 10 if options.tiny else 1  # a rehearsal may have to share its processor
    remaining = list(options.sections)
    while remaining and time.monotonic() < deadline:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(
            target=work, args=(remaining, options, folder, log, sender)
        )
        worker.start()
        sender.close()
        try:
            report["machine"] = receive(receiver, START * patience)
            if report["machine"]["card"] == "none" and not options.tiny:
                sys.exit("there is no GPU here; --tiny rehearses on the CPU")
            while remaining and time.monotonic() < deadline:
                limit = SECTIONS[remaining[0]][0] * patience
                limit = min(limit, deadline - time.monotonic())
                tell(remaining[0], receive(receiver, limit))
                del remaining[0]
        except TimeoutError as error:
            tell(remaining.pop(0), {"failed": str(error)})
        except EOFError:
            worker.join()
            if worker.exitcode:
                code = worker.exitcode
                tell(remaining.pop(0), {"failed": f"the process ended with {code}"})
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.join()
    for name in remaining:
        tell(name, {"not run": f"the {options.seconds:.0f} s were over"})


def receive(receiver: Connection, limit: float) -> dict[str, Any]:
    """What the worker sends next.

    Raises:
        TimeoutError: nothing in time. EOFError: the worker has ended.
    """
    if not receiver.poll(limit):
        raise TimeoutError(f"took longer than {limit:.0f} s")
    return receiver.recv()


def machine() -> dict[str, Any]:
    """Card and versions."""
    import torch

    found: dict[str, Any] = {"card": "none"}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found = {"card": card.name, "memory_gib": gib(card.total_memory)}
        found["cuda"] = torch.version.cuda
    found |= {"cpus": os.cpu_count(), "python": platform.python_version()}
    for package in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def line(name: str, found: Mapping[str, Any]) -> str:
    """One section for the terminal."""
    for key in ("not run", "failed"):
        if key in found:
            return f"{name:28} {key}: {found[key]}"
    plain = {k: v for k, v in found.items() if not isinstance(v, dict | list)}
    return f"{name:28} {json.dumps(found.get('alignkit / trl', {}) | plain)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(SECTIONS)
    add = parser.add_argument
    add("--output", type=Path, default=ROOT / "docs" / "performance-gpu.json")
    add("--log", type=Path, help="where all that the runs print goes")
    add("--sections", nargs="+", choices=names, default=names)
    add("--seconds", type=float, default=600, help="for all sections together")
    add("--tokenizer", type=Path, help="a tokenizer's folder (default: bytes)")
    add("--tiny", action="store_true", help="rehearse the script; on a CPU too")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # alignkit need not be installed: for the worker, and for what that starts.
    sys.path.append(str(ROOT))
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": {},
        "shape": TINY_SHAPE if options.tiny else SHAPE,
        "tokenizer": options.tokenizer.name if options.tokenizer else "bytes",
        "sections": {},
    }
    with tempfile.TemporaryDirectory() as name:
        log = options.log or Path(name) / "log.txt"

        def tell(section: str, found: dict[str, Any]) -> None:
            report["sections"][section] = found
            text = json.dumps(report, indent=1) + "\n"
            options.output.write_text(text, encoding="utf-8")
            print(line(section, found), flush=True)

        conduct(options, Path(name), log, report, tell)


if __name__ == "__main__":
    main()
