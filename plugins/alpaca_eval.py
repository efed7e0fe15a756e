"""The 805 instructions of AlpacaEval with GPT-4 Turbo's replies (Dubois et al. 2024,
arXiv:2404.04475).
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import DatasetSource, InputError, hookimpl, read_rows

_FILE = "alpaca_eval_gpt4_baseline.json"


def load(
    *, split: Literal["eval"] = "eval", path: str | None = None
) -> list[dict[str, Any]]:
    """`question`, `reference` (the reply to beat), `generator` (who wrote it),
    `position` in the file `of` so many.
    """
    rows = read_rows(
        path=path, local=[_FILE], hub="tatsu-lab/alpaca_eval", hub_file=_FILE
    )
    if lacking := next(
        (
            n
            for n, row in enumerate(rows, 1)
            if not {"instruction", "output"} <= row.keys()
        ),
        None,
    ):
        raise InputError(
            f"AlpacaEval row {lacking}: expected `instruction` and `output` (of the"
            " reference model)"
        )
    names = {"instruction": "question", "output": "reference"}
    return [
        {**{names.get(k, k): v for k, v in row.items()}, "position": i, "of": len(rows)}
        for i, row in enumerate(rows)
    ]


@hookimpl
def align_datasets() -> Iterator[DatasetSource]:
    yield DatasetSource("alpaca", load)
