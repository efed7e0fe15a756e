"""math-verify's verdict (Hugging Face), under a deadline that its own signal-based one
cannot give in a thread.
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignkit import Reward, Score, grade_math_verify, hookimpl


def math_verify(
    response: str, truth: Any, *, boxes: Literal["last", "set"] = "last"
) -> Score:
    r"""1 when math-verify finds the last formula of the response equal to the truth; a
    list of truths: to any.

    Of boxes apart the last one counts; with `boxes="set"` they are a set, as math-verify
    reads them.

    >>> math_verify(r"so it is $\frac{1}{2}$", "0.5").reward
    1.0
    """
    return grade_math_verify(response, truth, boxes=boxes)


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("math_verify", math_verify)
