"""A judge that runs in this process, from a Hub id or a folder: `--judge local:PATH`."""

from collections.abc import Iterator

from alignkit import Judge, hookimpl, local_chat


@hookimpl
def align_judges() -> Iterator[Judge]:
    yield Judge(
        name="local",
        model="meta-llama/Llama-3.2-3B-Instruct",
        price=0.0,
        create=local_chat,
    )
