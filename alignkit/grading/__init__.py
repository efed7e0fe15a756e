"""Grading: find the answer in a response, compare it with the truth, in workers that
can be killed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignkit.grading.bound import BoundReward, Graded, bind, bind_plugin
    from alignkit.grading.grader import Grader, Grading

# Loaded on first use: a worker needs none of the grader.
_HOME = {
    "BoundReward": "alignkit.grading.bound",
    "Graded": "alignkit.grading.bound",
    "Grader": "alignkit.grading.grader",
    "Grading": "alignkit.grading.grader",
    "bind": "alignkit.grading.bound",
    "bind_plugin": "alignkit.grading.bound",
}
__all__ = ["BoundReward", "Graded", "Grader", "Grading", "bind", "bind_plugin"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignkit.grading' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
