"""Anthropic's helpful and harmless comparisons, single turn (Bai et al. 2022,
arXiv:2204.05862).
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from alignkit import DatasetSource, InputError, hookimpl, read_rows

SOURCES = (
    "harmless-base",
    "helpful-base",
    "helpful-online",
    "helpful-rejection-sampled",
)
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def load(
    *, split: str = "train", path: str | None = None, sources: tuple[str, ...] = SOURCES
) -> list[dict[str, Any]]:
    """`question`, `chosen`, `rejected`, `source`; conversations of more than one
    question are left out.

    The Hub's files by source, or one local file whose rows may carry a `source`. The
    sources take turns, so that the first rows are of all of them.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown:
        raise InputError(
            f"dataset 'hh' has the sources {', '.join(SOURCES)}, not"
            f" {', '.join(unknown)}"
        )
    found: list[list[dict[str, Any]]] = []
    if path is not None:
        return list(_pairs(read_rows(path=path, local=(f"hh_{split}.jsonl",)), "hh"))
    for source in sources:
        local = [f"hh/{source}/{split}.jsonl.gz", f"hh/{source}/{split}.jsonl"]
        if split == "train":  # as the course ships them
            local += [f"hh/{source}.jsonl.gz", f"hh/{source}.jsonl"]
        hub_file = f"{source}/{split}.jsonl.gz"
        found.append(
            list(
                _pairs(
                    read_rows(local=local, hub="Anthropic/hh-rlhf", hub_file=hub_file),
                    source,
                )
            )
        )
    return [row for turn in zip_longest(*found) for row in turn if row is not None]


def _pairs(rows: Any, source: str) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        sides = [_TURN.split(row.get(side, ""))[1:] for side in ("chosen", "rejected")]
        for side in sides:
            if len(side) < 4 or side[0] != "Human":
                raise InputError(
                    f"HH row {number} ({source}): expected texts of Human and"
                    f" Assistant, got {sorted(row)}"
                )
        chosen, rejected = sides
        if len(chosen) == len(rejected) == 4 and chosen[:3] == rejected[:3]:
            yield {
                "id": f"{source}-{number - 1}",
                "question": chosen[1].strip(),
                "chosen": chosen[3].strip(),
                "rejected": rejected[3].strip(),
                "source": row.get("source", source),
            }


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("hh", load)
