"""Judges hosted by OpenAI."""

from collections.abc import Iterator

from alignkit import Judge, hookimpl


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="openai",
        model="gpt-4o-mini",
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        # of output tokens; input costs a quarter of it, so costs shown are upper bounds
        price=0.60,
    )
