"""What the responses of two evals are like, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from alignkit.checks.responses import FEATURES, grams
from alignkit.run.rows import Row

PHRASES = 5  # of three words, that one side uses most beyond the other
Trait = tuple[str, float, float]  # what, and the share or mean of either side


def traits(before: Sequence[Row], after: Sequence[Row]) -> list[Trait]:
    """Mean length in tokens, then shares of responses: cut, by status, with each
    feature, and with the phrases whose shares differ most. What neither side has is
    left out.
    """
    found: list[Trait] = []
    lengths = [[r["tokens"] for r in side if r["tokens"]] for side in (before, after)]
    if all(lengths):
        low, high = (sum(map(int, each)) / len(each) for each in lengths)
        found.append(("tokens, mean", low, high))
    shares: dict[str, Callable[[Row], bool]] = {
        "cut at max_new_tokens": lambda row: row["finish_reason"] == "length"
    }
    for status in sorted({str(row["status"]) for row in (*before, *after)}):
        shares[status] = lambda row, status=status: row["status"] == status  # type: ignore[misc]
    for name, has in FEATURES.items():
        shares[name] = lambda row, has=has: has(row["response"])  # type: ignore[misc]
    found += [(n, _share(before, has), _share(after, has)) for n, has in shares.items()]
    found += _phrases(before, after)
    return [each for each in found if each[1] or each[2]]


def _phrases(before: Sequence[Row], after: Sequence[Row]) -> list[Trait]:
    counts = [
        Counter(gram for row in side for gram in set(grams(row["response"])))
        for side in (before, after)
    ]
    shares = {
        gram: (counts[0][gram] / len(before), counts[1][gram] / len(after))
        for gram in counts[0].keys() | counts[1].keys()
    }
    # where shares are equal the text decides: the same evals show the same phrases
    most = sorted(
        shares, key=lambda gram: (-abs(shares[gram][1] - shares[gram][0]), gram)
    )
    return [
        (f"“{' '.join(gram)}”", *shares[gram])
        for gram in most[:PHRASES]
        if shares[gram][0] != shares[gram][1]
    ]


def _share(rows: Sequence[Row], has: Callable[[Row], bool]) -> float:
    return sum(map(has, rows)) / max(1, len(rows))
