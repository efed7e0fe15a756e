"""Judges hosted by Together AI. Prices differ by model and date: give --judge-price for
cost limits.
"""

from collections.abc import Iterator

from alignkit import Judge, hookimpl


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="together",
        model="meta-llama/Llama-3.3-70B-Instruct-Turbo",
        base_url="https://api.together.ai/v1",
        key="TOGETHER_API_KEY",
    )
