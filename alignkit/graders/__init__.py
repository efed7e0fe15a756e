"""Graders beside each other on what a run generated: where they differ, and what that
would have done to the advantages.
"""

from alignkit.graders.advantages import Recomputed
from alignkit.graders.differences import by_step, place, rollouts, summary

__all__ = ["Recomputed", "by_step", "place", "rollouts", "summary"]
