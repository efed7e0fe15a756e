"""What the texts themselves show."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Pushed:
    """A feature that the advantages favour (`gap` above 0) or hold down: mean advantage
    with it less without, and its share in the first and second half of the run.
    """

    name: str
    gap: float
    early: float
    late: float
    rows: tuple[str, ...]


def pushed(record: Record) -> list[Pushed]:
    """The features whose mean advantage differs beyond chance, the weightiest first:
    Welch's t, the p-values corrected after Benjamini and Hochberg (1995).

    Raises:
        Lacking: too few rollouts, or advantages that do not differ.
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
    tested = [
        (name, mask, *_welch(weights[mask], weights[~mask]))
        for name, mask in _features(record, indices).items()
        if min(mask.sum(), (~mask).sum()) >= 10
    ]
    half = len(indices) // 2
    features = [
        Pushed(
            name,
            gap,
            float(mask[:half].mean()),
            float(mask[half:].mean()),
            rollouts.show(np.isin(np.arange(len(rollouts)), indices[mask])),
        )
        for name, mask, gap, _ in _significant(tested)
    ]
    return sorted(
        features, key=lambda each: -abs(each.gap) * math.sqrt(each.early + each.late)
    )


@check(*ONLINE)
def what_is_pushed(record: Record) -> Finding | None:
    """What the advantages favour, feature by feature."""
    features = pushed(record)
    if not features:
        return None
    told = [
        f"{each.name}: {'favoured' if each.gap > 0 else 'held down'} ({each.gap:+.2f}),"
        f" share {each.early:.0%} -> {each.late:.0%}"
        for each in features[:SHOWN]
    ]
    return Finding(
        "note",
        "What the reward teaches",
        "; ".join(told)
        + " (mean advantage with it less without; shares of the first and second half)",
        "read rows with and without the first; features that go together are told of"
        " each by itself",
        features[0].rows,
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
        found[f"responses of at most {low:.0f} tokens"] = lengths <= low
        found[f"responses of at least {high:.0f} tokens"] = lengths >= high
    found["responses cut at max_new_tokens"] = rollouts.array("cut")[indices]
    phrases = [set(grams(text)) for text in texts]
    counts = Counter(gram for each in phrases for gram in each)
    for gram, _ in counts.most_common(FREQUENT):
        found[f"“{' '.join(gram)}”"] = np.array([gram in each for each in phrases])
    return found


def grams(text: str) -> list[tuple[str, ...]]:
    """Three words side by side, in lower case; tags count as words."""
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
