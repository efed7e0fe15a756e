r"""Mathematics by what the final answer means: numbers exactly, formulas by their value,
lists, intervals, units; for whoever does not compare with a published grader.
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import Reward, Score, grade_math, hookimpl


def math(
    response: str,
    truth: Any,
    *,
    units: Literal["agree", "exact", "ignore"] = "agree",
    tolerance: float = 0.0,
) -> Score:
    r"""1 when the final answer, behind the thinking, means what the truth does; a list
    of truths: any.

    `units`: a stated unit must not contradict the truth's (`agree`), must be stated
    (`exact`), or does not count (`ignore`). `tolerance`: relative, of numbers.

    >>> math(r"<think>\boxed{3}?</think> It is \boxed{500\text{ cm}}.", r"5\text{ m}").reward
    1.0
    """
    return grade_math(response, truth, units=units, tolerance=tolerance)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("math", math)
