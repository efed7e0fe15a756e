"""The question as one user message, through the chat template of the model."""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt(
        "chat",
        (
            {"role": "user", "content": "{question}"},
            {"role": "assistant", "content": "{response}"},
        ),
    )
