"""A judge behind a vLLM server (or any OpenAI-compatible one without a key) of one's
own.
"""

from collections.abc import Iterator

from alignkit import Judge, hookimpl


@hookimpl
def align_judges() -> Iterator[Judge]:
    # No model name: the one that the server lists first is asked.
    yield Judge(name="vllm", model="", base_url="http://localhost:8000/v1", price=0.0)
