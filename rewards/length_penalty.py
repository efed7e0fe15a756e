"""A soft penalty on overlong responses (DAPO, Yu et al. 2025, arXiv:2503.14476,
equation 13), counted in words.
"""

from collections.abc import Iterator

from alignkit import Reward, Score, hookimpl


def length_penalty(response: str, *, target: int = 512, buffer: int = 256) -> Score:
    """0 up to `target` words, then falling evenly to -1 over the next `buffer` words.

    >>> length_penalty("a " * 6, target=4, buffer=4).reward
    -0.5
    """
    over = len(response.split()) - target
    penalty = 0.0 if over <= 0 else -min(1.0, over / buffer) if buffer > 0 else -1.0
    return Score(penalty, "ok", {"length_penalty": penalty})


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("length_penalty", length_penalty, style=True)
