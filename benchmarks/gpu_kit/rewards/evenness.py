"""A reward that any text has, with variance in every group."""

from collections.abc import Iterator

from alignkit import Reward, hookimpl


def evenness(response: str) -> float:
    """The share of characters with an even code.

    >>> evenness("ab")
    0.5
    """
    return sum(ord(letter) % 2 == 0 for letter in response) / max(1, len(response))


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("evenness", evenness)
