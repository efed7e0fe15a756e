r"""The question, and that its answer belongs in a box (CS336's `question_only` of 2026;
our words).
"""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt(
        "question_boxed", "{question} Write the final answer in \\boxed{} at the end."
    )
