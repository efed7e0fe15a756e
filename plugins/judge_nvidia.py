"""Judges hosted by NVIDIA. Give --judge-price for cost limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from alignkit import Judge, hookimpl


def scores(choice: Mapping[str, Any]) -> str | None:
    """The scores of a reward model, as `name:score` lines: it echoes the messages, and
    its scores stand where log-probs do.
    """
    if not isinstance(choice.get("message"), list):
        return None
    tokens = choice["logprobs"]["content"]
    return "\n".join(f"{t['token']}:{float(t['logprob'])}" for t in tokens)


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="nvidia",
        model="meta/llama-3.3-70b-instruct",
        base_url="https://integrate.api.nvidia.com/v1",
        key="NVIDIA_API_KEY",
        read_choice=scores,
    )
