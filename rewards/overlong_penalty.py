"""The soft overlong punishment of DAPO (Yu et al. 2025, arXiv:2503.14476, equation 13),
counted in tokens.
"""

from collections.abc import Iterator

from alignkit import Reward, Score, hookimpl


def overlong_penalty(
    tokens: int | None, *, longest: int = 1024, buffer: int = 256
) -> Score:
    """0 up to `longest` - `buffer` tokens, then falling evenly to -1 at `longest`: the
    `max_new_tokens` of the run. Unparsed where the tokens are not known.

    >>> overlong_penalty(960, longest=1024, buffer=256).reward
    -0.75
    """
    if tokens is None:
        return Score(0.0, "unparsed", explanation="how many tokens is not known")
    over = tokens - (longest - buffer)
    penalty = 0.0 if over <= 0 else -min(1.0, over / buffer) if buffer > 0 else -1.0
    return Score(penalty, "ok", {"overlong_penalty": penalty})


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("overlong_penalty", overlong_penalty, style=True)
