"""Think first, then answer, in tags: the contract of DeepSeek-R1-Zero and CS336 (our
words).
"""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl

TEMPLATE = (
    "Below, a User puts a question to an Assistant. The Assistant works the question"
    " out step by step before it commits itself: all of its reasoning stands between"
    " <think> and </think>, and after one space the final answer alone stands between"
    " <answer> and </answer>, so that a reply looks like <think> the reasoning </think>"
    " <answer> the final answer </answer>.\nUser: {question}\nAssistant: <think>"
)


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt("r1_zero", TEMPLATE, stop=("</answer>",))
