"""A penalty on repeated word sequences (Yeo et al. 2025, arXiv:2502.03373, appendix)."""

from collections.abc import Iterator

from alignkit import Reward, Score, hookimpl


def repetition_penalty(response: str, *, ngram: int = 5, scale: float = 1.0) -> Score:
    """`-scale` times the share of the response's word n-grams that occurred before in
    it.

    >>> repetition_penalty("a b a b a b", ngram=2).reward
    -0.6
    """
    words = response.split()
    grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
    penalty = -scale * (1 - len(set(grams)) / len(grams)) if grams else 0.0
    return Score(penalty, "ok", {"repetition_penalty": penalty})


@hookimpl
def align_rewards() -> Iterator[Reward]:
    yield Reward("repetition_penalty", repetition_penalty, style=True)
