"""Judges through OpenRouter, which chooses a host per request. Give --judge-price for
cost limits.
"""

from collections.abc import Iterator

from alignkit import Judge, hookimpl


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="openrouter",
        model="meta-llama/llama-3.3-70b-instruct",
        base_url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
    )
