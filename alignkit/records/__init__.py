"""What a run's folder says of itself, as data: recipe, metrics, rollouts, evals."""

from alignkit.records.rollouts import Rollouts, read_rollouts
from alignkit.records.run import Eval, Record, read

__all__ = ["Eval", "Record", "Rollouts", "read", "read_rollouts"]
