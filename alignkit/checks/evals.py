"""Whether the evals can show what is asked of them."""

from __future__ import annotations

import math
from typing import Any

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.records import Eval, Record

ALL = ("sft", "dpo", "grpo", "rloo", "expert_iteration")


def _evals(record: Record) -> list[Eval]:
    if not record.evals:
        raise Lacking("an eval of this run")
    return list({each.name: each for each in record.evals}.values())


def _number(each: Eval, key: str) -> float:
    value = each.summary.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


@check(*ALL)
def eval_too_small(record: Record) -> Finding | None:
    """An eval has too few questions to show a plausible gain."""
    for last in _evals(record):
        low, high, n = (_number(last, key) for key in ("low", "high", "n"))
        if not 0 <= low <= high <= 1 or n < 1:
            continue  # no share, or nothing scored
        same = [each for each in record.evals if each.name == last.name]
        values = [each.summary.get("value") for each in same]
        seen = [value for value in values if isinstance(value, int | float)]
        # at a mean of one half, two independent samples, 80 % power at 5 %
        least = 2.8 * math.sqrt(2 * 0.25 / n)
        if least <= 0.25 or (seen and max(seen) - min(seen) > least):
            continue
        return Finding(
            "look",
            f"{last.name} has too few questions to show a gain",
            f"{n:g} questions: below {least:.0%} a difference is not told from chance;"
            f" {last.summary.get('value'):.3f} may be {low:.3f} to {high:.3f}",
            f"a larger evals.{last.name}.limit",
            (str(last.folder / "samples.jsonl"),),
        )
    return None


@check(*ALL)
def judge_prefers_a_place(record: Record) -> Finding | None:
    """A judge's verdict depends on the order in which it reads."""
    judged = False
    for last in _evals(record):
        flips, pairs, first, verdicts = 0, 0, 0, 0
        for row in last.samples():
            by_judge: dict[str, dict[int, Any]] = {}
            for said in row["verdicts"]:
                if isinstance(said["reward"], int | float):
                    by_judge.setdefault(said["judge"], {})[said["order"]] = said[
                        "reward"
                    ]
            for orders in by_judge.values():
                for order, reward in orders.items():
                    if reward != 0.5:
                        verdicts += 1
                        first += (reward > 0.5) == (order == 0)
                if len(orders) == 2:
                    pairs += 1
                    flips += len({reward > 0.5 for reward in orders.values()}) > 1
        judged = judged or verdicts > 0
        balanced = pairs and 2 * pairs >= verdicts
        lean = abs(first / verdicts - 0.5) if verdicts and balanced else 0.0
        if pairs < 30 or (flips / pairs <= 0.1 and lean <= 1 / math.sqrt(verdicts)):
            continue
        return Finding(
            "look",
            f"The judge of {last.name} prefers a place",
            f"{flips} of {pairs} pairs are judged otherwise in the other order; the"
            f" first place wins {first / verdicts:.0%} of {verdicts} verdicts",
            "judge every pair in both orders, or take another judge",
            (str(last.folder / "samples.jsonl"),),
        )
    if not judged:
        raise Lacking("judgements in both orders")
    return None


@check(*ALL)
def judge_prefers_length(record: Record) -> Finding | None:
    """A judge's verdict goes with the length of the response."""
    judged = False
    for last in _evals(record):
        if not last.summary.get("provenance", {}).get("judge"):
            continue
        pairs = [
            (float(row["reward"]), float(len(row["response"])))
            for row in last.samples()
            if isinstance(row["reward"], int | float)
        ]
        judged = judged or len(pairs) >= 50
        related = _correlation(pairs) if len(pairs) >= 50 else 0.0
        if abs(related) <= max(0.3, 2.6 / math.sqrt(len(pairs) or 1)):
            continue
        return Finding(
            "note",
            f"The judge of {last.name} prefers {'long' if related > 0 else 'short'}"
            " responses",
            f"verdict and length correlate with r = {related:.2f} over {len(pairs)}"
            " responses",
            "report a win rate controlled for length, or compare responses of like"
            " length",
            (str(last.folder / "samples.jsonl"),),
        )
    if not judged:
        raise Lacking("an eval with a judge and 50 verdicts")
    return None


@check(*ALL)
def open_judgements(record: Record) -> Finding | None:
    """Judgements are missing, so the value is biased."""
    for last in _evals(record):
        status = last.summary.get("status")
        counts = status if isinstance(status, dict) else {}
        total = sum(counts.values())
        missing = sum(counts.get(name, 0) for name in ("open", "refused"))
        if total and missing / total > 0.01:
            return Finding(
                "look",
                f"{last.name} is not wholly judged",
                f"{missing} of {total} have no verdict"
                f" ({counts.get('open', 0)} open, {counts.get('refused', 0)} refused):"
                " its value is that of the others",
                "run the eval again for the open ones; those that were refused stay out",
                (str(last.folder / "samples.jsonl"),),
            )
    return None


def _correlation(pairs: list[tuple[float, float]]) -> float:
    import numpy as np

    rewards, lengths = np.array(pairs).T
    if np.ptp(rewards) == 0 or np.ptp(lengths) == 0:
        return 0.0
    return float(np.corrcoef(rewards, lengths)[0, 1])
