"""Instruction and response under headings, the format of Stanford Alpaca (our words),
for SFT, DPO and their evals.
"""

from collections.abc import Iterator

from alignkit import Prompt, hookimpl

TEMPLATE = (
    "The following instruction describes a task. Write a response that carries it out"
    " well.\n\n### Instruction:\n{instruction}\n\n### Response:\n{response}\n"
)


@hookimpl
def align_prompts() -> Iterator[Prompt]:
    yield Prompt("alpaca", TEMPLATE)
