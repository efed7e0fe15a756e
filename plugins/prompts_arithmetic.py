"""The prompt of the quickstart: the question, and an answer that starts with an open
`<think>`.
"""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt(
        "arithmetic", "User: {question}\nAssistant: <think>", stop=("</answer>",)
    )
