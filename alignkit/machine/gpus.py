"""The GPUs that this process may use. torch, which takes seconds to import, is asked
only where it will compute.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
from dataclasses import dataclass

FIELDS = "index,uuid,name,memory.total,memory.used,compute_cap"


@dataclass(frozen=True, slots=True)
class Gpu:
    """As nvidia-smi describes it; memory in MiB, 0 where it is shared with the
    processor and not counted.
    """

    name: str
    total: int
    used: int
    capability: float


def cuda_available() -> bool:
    """Whether torch computes on a GPU here."""
    import torch

    return torch.cuda.is_available()


def computing() -> list[str]:
    """The names of the GPUs that torch computes on."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def visible() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them, or all of the machine by number."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is None:
        return [index for index, _, _ in _listed()]
    names = (name.strip() for name in stated.split(","))
    # CUDA sees none behind the first that cannot be
    return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))


def cards() -> list[Gpu]:
    """What nvidia-smi says of the visible GPUs; none where it does not answer."""
    listed = _listed()
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return [card for _, _, card in listed]
    seen = []
    for name in visible():
        if name.startswith("MIG-"):  # a part of a card, which the query does not list
            seen += [Gpu(name, 0, 0, math.inf)] if listed else []
            continue
        fitting = [
            card
            for index, uuid, card in listed
            if name == index or uuid.startswith(name)
        ]
        if len(fitting) != 1:
            break
        seen += fitting
    return seen


def driver() -> str:
    """The newest CUDA version that the driver runs, "" without one."""
    version = re.search(r"CUDA Version: *([\d.]+)", _smi())
    return version[1] if version else ""


def _listed() -> list[tuple[str, str, Gpu]]:
    """(index, uuid, card) of every GPU of the machine."""
    lines = _smi(f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits").splitlines()
    rows = [
        re.fullmatch(r"(\d+), (\S+), (.*), (.*), (.*), (.*)", line) for line in lines
    ]
    return [
        (row[1], row[2], Gpu(row[3], _count(row[4]), _count(row[5]), _number(row[6])))
        for row in rows
        if row is not None
    ]


def _smi(*arguments: str) -> str:
    """What nvidia-smi prints; a driver that does not answer is no GPU."""
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _count(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _number(text: str) -> float:
    # not reported: nothing to warn of
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else math.inf
