"""AlpacaEval: 805 instructions, replies against GPT-4 Turbo's (Dubois et al. 2024,
arXiv:2404.04475).

Our judging client asks the judge; the alpaca-eval library makes metrics,
leaderboard.csv and annotations.json.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alignkit import Eval, Sample, hookimpl

from ._alpaca import alpaca_leaderboard, needs_library
from ._alpaca_config import read_config
from ._alpaca_orders import comparing
from ._alpaca_question import first_ranks_first, ranking


def samples(
    rows: Iterable[dict[str, Any]],
    render: Callable[..., Any],
    *,
    both_orders: bool = False,
) -> Iterator[Sample]:
    """One sample per instruction; `both_orders`: the judge sees each pair in both."""
    needs_library()
    both = {"both_orders": True} if both_orders else {}
    for row in rows:
        yield Sample(
            f"alpaca-{row['position']}",
            render({"question": row["question"]}),
            None,
            {**row, **both},
        )


TASK = comparing(
    ranking, first_ranks_first, {"temperature": 0.0, "max_new_tokens": 100}
)


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield Eval(
        name="alpaca",
        samples=samples,
        judge=dataclasses.replace(TASK, configured=read_config),
        summarize=alpaca_leaderboard,
        data={"dataset": "alpaca"},
        prompt="zero_shot_system",
        sampling={"temperature": 0.0, "max_new_tokens": 1024, "stop": ["# Query:"]},
        metric="win_rate",
        source="CS336 assignment 5, supplement 2.3 (the limit of 1,024 tokens is ours)",
    )
