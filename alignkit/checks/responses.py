"""What the texts themselves show."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.checks.rewards import ONLINE, rollouts_of
from alignkit.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.01
SHOWN = 8  # features
FREQUENT = 20  # n-grams
# what can be seen of a response without knowing its task
FEATURES: dict[str, Callable[[str], bool]] = {
    "empty thinking": lambda text: (
        re.match(r"\s*(<think>)?\s*</think>", text) is not None
    ),
    "a box": lambda text: "\\boxed" in text,
    "a code block": lambda text: "```" in text,
    "a list": lambda text: re.search(r"^\s*(?:[-*]|\d+\.)\s", text, re.M) is not None,
    "letters that are not Latin": lambda text: any(
        character.isalpha() and ord(character) > 0x24F for character in text
    ),
    "an apology or refusal": lambda text: (
        re.search(r"\b(?:sorry|cannot|can't|unable)\b", text, re.I) is not None
    ),
}


@check(*ONLINE)
def thinking_opened_twice(record: Record) -> Finding | None:
    """The prompt opens <think>, and the response does so again."""
    rollouts = rollouts_of(record)
    twice = rollouts.array("twice")
    share = float(twice.mean())
    if share <= 0.05:
        return None
    return Finding(
        "look",
        "<think> is opened twice: by the prompt and by the response",
        f"{share:.0%} of {len(rollouts)} rollouts",
        "leave it out of the prompt, or out of the data that the model learnt it from",
        rollouts.show(twice),
    )


@check(*ONLINE)
def turn_runs_on(record: Record) -> Finding | None:
    """Responses go on into a further turn."""
    rollouts = rollouts_of(record)
    on = rollouts.array("runs_on")
    share = float(on.mean())
    if share <= 0.01 or on.sum() < 3:
        return None
    return Finding(
        "look",
        "Responses go on into a further turn: the stop is not in force",
        f"{share:.1%} of {len(rollouts)} rollouts hold the marker of a next turn; the"
        " grader may read a second answer",
        "generation.stop, or the model's end token",
        rollouts.show(on),
    )


@check(*ONLINE)
def what_is_pushed(record: Record) -> Finding | None:
    """What the advantages favour: for each feature of a response its share over the
    run, and the mean advantage with and without it (Welch's t; the p-values corrected
    after Benjamini and Hochberg, 1995).
    """
    import numpy as np

    rollouts = rollouts_of(record)
    indices = np.array(sorted(rollouts.texts))
    weights = rollouts.array("advantage")[indices]
    if not np.isfinite(weights).any():
        # expert iteration has none: what was right is trained on
        weights = rollouts.array("reward")[indices]
    indices, weights = indices[np.isfinite(weights)], weights[np.isfinite(weights)]
    if len(indices) < 100 or np.ptp(weights) == 0:
        raise Lacking("100 rollouts whose advantages differ")
    features = _features(record, indices)
    tested = [
        (name, mask, *_welch(weights[mask], weights[~mask]))
        for name, mask in features.items()
        if min(mask.sum(), (~mask).sum()) >= 10
    ]
    tested = _significant(tested)
    if not tested:
        return None
    tested.sort(key=lambda each: -abs(each[2]) * math.sqrt(each[1].mean()))
    half = len(indices) // 2
    lines = [
        f"{name}: {'favoured' if gap > 0 else 'held down'} ({gap:+.2f}), share"
        f" {mask[:half].mean():.0%} -> {mask[half:].mean():.0%}"
        for name, mask, gap, _ in tested[:SHOWN]
    ]
    strongest = tested[0]
    return Finding(
        "note",
        "What the reward teaches",
        "; ".join(lines)
        + f" (mean advantage with it less without, over {len(indices)} rollouts; shares"
        " of the first and second half)",
        "read rows with and without the first; features that go together are told of"
        " each by itself",
        rollouts.show(np.isin(np.arange(len(rollouts)), indices[strongest[1]])),
    )


def _features(record: Record, indices: NDArray[Any]) -> dict[str, NDArray[Any]]:
    import numpy as np

    rollouts = record.rollouts
    texts = [rollouts.texts[index] for index in indices]
    found = {
        name: np.array([has(text) for text in texts]) for name, has in FEATURES.items()
    }
    lengths = rollouts.array("tokens")[indices]
    low, high = np.quantile(lengths, [0.25, 0.75])
    if low < high:
        found[f"at most {low:.0f} tokens"] = lengths <= low
        found[f"at least {high:.0f} tokens"] = lengths >= high
    found["cut at max_new_tokens"] = rollouts.array("cut")[indices]
    grams = [set(_grams(text)) for text in texts]
    counts = Counter(gram for each in grams for gram in each)
    for gram, _ in counts.most_common(FREQUENT):
        found[f"“{' '.join(gram)}”"] = np.array([gram in each for each in grams])
    return found


def _grams(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[^\W\d_]+|</?\w+>", text.lower())[:400]
    return list(zip(words, words[1:], words[2:], strict=False))


def _welch(ours: NDArray[Any], others: NDArray[Any]) -> tuple[float, float]:
    """Difference of the means, and its two-sided p-value (normal: each side has ten or
    more).
    """
    gap = float(ours.mean() - others.mean())
    error = math.sqrt(
        float(ours.var(ddof=1)) / len(ours) + float(others.var(ddof=1)) / len(others)
    )
    return gap, math.erfc(abs(gap) / error / math.sqrt(2)) if error else float(gap == 0)


def _significant(tested: list[Any]) -> list[Any]:
    ranked = sorted(tested, key=lambda each: each[3])
    passed = [
        rank
        for rank, each in enumerate(ranked, 1)
        if each[3] <= ALPHA * rank / len(ranked)
    ]
    return ranked[: max(passed, default=0)]
