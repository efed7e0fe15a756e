"""From scored rows to a summary: means with 95 % intervals, counts, pass@k."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

Row = Mapping[str, Any]
_Z = NormalDist().inv_cdf(0.975)


def interval(
    values: Sequence[float], clusters: Sequence[str]
) -> tuple[float, float, float] | tuple[None, None, None]:
    """(mean, low, high) with a 95 % interval over questions; `clusters` names the
    question of each value.

    One 0/1 value per question: Wilson's interval (1927). Otherwise Student's t with the
    cluster-robust standard error (Miller 2024, arXiv:2411.00640); no interval (the mean
    thrice, as nothing can be said) for one question.
    """
    if not values:
        return None, None, None
    n, mean = len(values), math.fsum(values) / len(values)
    questions = len(set(clusters))
    if questions == n and set(values) <= {0.0, 1.0}:
        centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = (
            _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
        )
        return mean, max(0.0, centre - half), min(1.0, centre + half)
    if questions < 2:
        return mean, mean, mean
    from scipy.special import stdtrit

    off: dict[str, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        off[cluster] += value - mean
    error = (
        math.sqrt(math.fsum(d * d for d in off.values()) * questions / (questions - 1))
        / n
    )
    half = float(stdtrit(questions - 1, 0.975)) * error
    return mean, mean - half, mean + half


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k completions is right, from n of
    which `correct` are (Chen et al. 2021, arXiv:2107.03374).
    """
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def pass_metrics(rows: Sequence[Row], samples: int) -> dict[str, float]:
    """pass@1, 2, 4, … up to `samples`, over the questions whose completions are all
    there.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        right[row["id"]].append(row["status"] == "ok")
    complete = [marks for marks in right.values() if len(marks) >= samples]
    ks = sorted(
        {2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples}
    )
    if not complete:
        return {}
    return {
        f"pass@{k}": (
            math.fsum(pass_at_k(len(marks), sum(marks), k) for marks in complete)
            / len(complete)
        )
        for k in ks
    }


def majority(rows: Sequence[Row], samples: int) -> dict[str, tuple[float, ...]]:
    """{maj@k: (value, low, high)} for k = `samples`, over the questions whose
    completions are all there; nothing where a wrong completion does not say its answer.

    The share of questions whose most frequent answer is right. Answers graded right are
    one, wrong ones by the grader's normal form; completions without an answer have no
    vote, and of equally frequent answers the first one counts.
    """
    if any(row["status"] == "wrong" and row["vote"] is None for row in rows):
        return {}
    votes: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["sample"]):
        votes[row["id"]].append(row)
    complete = {name: cast for name, cast in votes.items() if len(cast) >= samples}
    values = [float(_elected(cast)) for cast in complete.values()]
    value, low, high = interval(values, list(complete))
    if value is None or low is None or high is None:
        return {}
    return {f"maj@{samples}": (value, low, high)}


def _elected(cast: Sequence[Row]) -> bool:
    """Whether the most frequent answer is right; None stands for the right one."""
    answers = [
        None if row["status"] == "ok" else row["vote"]
        for row in cast
        if row["status"] in ("ok", "wrong")
    ]
    # the first of equally frequent ones
    return bool(answers) and Counter(answers).most_common(1)[0][0] is None


def tally(rows: Sequence[Row]) -> dict[str, int]:
    """Counts by format x answer, for evals whose scores have both parts."""
    counted = [
        r["parts"]
        for r in rows
        if {"format_reward", "answer_reward"} <= r["parts"].keys()
    ]
    if not counted:
        return {}
    counts = Counter((p["format_reward"] > 0, p["answer_reward"] > 0) for p in counted)
    classes = [
        (True, True),
        (True, False),
        (False, False),
        *([(False, True)] if counts[(False, True)] else []),
    ]
    return {f"format={int(f)} answer={int(a)}": counts[(f, a)] for f, a in classes}


def breakdown(rows: Sequence[Row], key: str) -> dict[str, dict[str, float]]:
    """{group: {n, value, low, high}} by a metadata key, sorted; for `Eval.summarize`.
    `n` counts completions.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["metadata"].get(key) is not None:
            groups[str(row["metadata"][key])].append(row)
    found: dict[str, dict[str, float]] = {}
    for name, members in sorted(groups.items()):
        value, low, high = interval(
            [r["reward"] for r in members], [r["id"] for r in members]
        )
        if value is not None and low is not None and high is not None:
            found[name] = {"n": len(members), "value": value, "low": low, "high": high}
    return found


def summarize(rows: Sequence[Row], samples: int) -> dict[str, Any]:
    """The numbers of a summary: `value`, `low`, `high`, `metrics`, `status`, `tally`.

    Open rows count in `n` and `status` only.
    """
    scored = [row for row in rows if row["reward"] is not None]
    value, low, high = interval(
        [r["reward"] for r in scored], [r["id"] for r in scored]
    )
    metrics: dict[str, Any] = {"scored": len(scored)}
    for part in sorted({name for row in scored for name in row["parts"]}):
        values = [row["parts"][part] for row in scored if part in row["parts"]]
        metrics[part] = math.fsum(values) / len(values)
    lengths = [row["tokens"] for row in rows if row["tokens"] is not None]
    if lengths:
        metrics["mean_tokens"] = sum(lengths) / len(lengths)
    if rows:
        metrics["truncated"] = sum(
            row["finish_reason"] == "length" for row in rows
        ) / len(rows)
    votes = majority(scored, samples) if samples > 1 else {}
    if samples > 1:
        metrics |= pass_metrics(scored, samples)
        metrics |= {name: numbers[0] for name, numbers in votes.items()}
    status = dict(sorted(Counter(row["status"] for row in rows).items()))
    return {
        "n": len({row["id"] for row in rows}),
        "completions": len(rows),
        "value": value,
        "low": low,
        "high": high,
        "metrics": metrics,
        "intervals": {name: list(numbers[1:]) for name, numbers in votes.items()},
        "status": status,
        "tally": tally(scored),
    }
