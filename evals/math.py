"""MATH, the 5,000 test problems, as CS336 evaluates them (Hendrycks et al. 2021,
arXiv:2103.03874).
"""

from collections.abc import Iterator

from alignkit import Eval, hookimpl, math_eval


@hookimpl
def align_evals() -> Iterator[Eval]:
    yield math_eval(
        "math", source="CS336 assignment 5; grader of Dr. GRPO (arXiv:2503.20783)"
    )
