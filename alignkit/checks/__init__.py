"""What a run's files say about its health: pure functions over its record.

A check is silent where all is well, gives a `Finding` where it is not, and says what it
would need where the run holds no data for it. It judges a run by the run's own first
steps; absolute bounds stand on shares only. One file a family.
"""

from alignkit.checks import (
    data,
    evals,
    gradients,
    lengths,
    losses,
    policy,
    responses,
    rewards,
)
from alignkit.checks.finding import CHECKS, LEVELS, Check, Finding, Report, examine

__all__ = [
    "CHECKS",
    "LEVELS",
    "Check",
    "Finding",
    "Report",
    "data",
    "evals",
    "examine",
    "gradients",
    "lengths",
    "losses",
    "policy",
    "responses",
    "rewards",
]
