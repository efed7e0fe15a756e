"""alignkit: recipes and plugins for aligning language models with TRL. What is exported
here is the public API.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import alignkit` and the command line start at once.
_HOME = {
    "Advantage": "alignkit.types",
    "AlignError": "alignkit.errors",
    "Callback": "alignkit.types",
    "DatasetSource": "alignkit.types",
    "Eval": "alignkit.benchmarks",
    "EvalFamily": "alignkit.benchmarks",
    "Executor": "alignkit.executors",
    "InputError": "alignkit.errors",
    "Judge": "alignkit.benchmarks",
    "JudgeClient": "alignkit.endpoint.judges",
    "JudgeConfig": "alignkit.benchmarks",
    "JudgeTask": "alignkit.benchmarks",
    "LocalWorkers": "alignkit.sweep.local",
    "Loss": "alignkit.types",
    "LostError": "alignkit.executors",
    "MissingError": "alignkit.errors",
    "PolicyBatch": "alignkit.types",
    "PreferenceBatch": "alignkit.types",
    "Prompt": "alignkit.types",
    "Reward": "alignkit.types",
    "RunInfo": "alignkit.types",
    "SFTBatch": "alignkit.types",
    "Sample": "alignkit.types",
    "Score": "alignkit.types",
    "Task": "alignkit.executors",
    "WorkError": "alignkit.errors",
    "Workers": "alignkit.executors",
    "asks_for": "alignkit.errors",
    "compare": "alignkit.notebook",
    "compute_grpo_clip_loss": "alignkit.functional",
    "compute_grpo_no_clip_loss": "alignkit.functional",
    "compute_gspo_loss": "alignkit.functional",
    "compute_naive_policy_gradient_loss": "alignkit.functional",
    "dpo_loss": "alignkit.functional",
    "echo": "alignkit.terminal",
    "extract_answer": "alignkit.grading.extract",
    "find_judge": "alignkit.endpoint.judges",
    "grade": "alignkit.grading.grade",
    "grade_answer": "alignkit.grading.grade",
    "grade_math": "alignkit.grading.answer.verdict",
    "grade_math_verify": "alignkit.grading.grade",
    "group_advantages": "alignkit.functional",
    "group_normalize": "alignkit.functional",
    "hookimpl": "alignkit.hookspecs",
    "load_kit": "alignkit.plugins",
    "local_chat": "alignkit.engines.local",
    "masked_mean": "alignkit.functional",
    "masked_normalize": "alignkit.functional",
    "breakdown": "alignkit.evaluate.summary",
    "read_file": "alignkit.data",
    "read_messages": "alignkit.data.conversations",
    "read_rows": "alignkit.data",
    "runs": "alignkit.notebook",
    "truth_texts": "alignkit.grading.truths",
}
__all__ = sorted(_HOME)
# What 0.1 exported of single benchmarks lies with these, in the built-in kit.
_MOVED = {
    "alpaca_leaderboard": "alignkit.kits.builtin.evals._alpaca",
    "math_eval": "alignkit.kits.builtin.evals._math",
    "math_rows": "alignkit.kits.builtin.evals._math",
    "parse_gsm8k_response": "alignkit.kits.builtin.evals._numbers",
    "parse_mmlu_response": "alignkit.kits.builtin.evals._mmlu",
    "reply_text": "alignkit.kits.builtin.evals._reply",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _MOVED.get(name)
    if home is None:
        raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    if name in _MOVED:
        globals()[name] = value  # so that it is said once
        warnings.warn(
            f"alignkit.{name} is now {home}.{name}", DeprecationWarning, stacklevel=2
        )
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
