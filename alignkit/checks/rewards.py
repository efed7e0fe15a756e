"""Whether the reward can teach: dead, uniform, failing, or gamed."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.checks.trend import WINDOW, rises
from alignkit.records import Record, Rollouts

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONLINE = ("grpo", "rloo", "expert_iteration")
LEAST = 200  # rollouts before their rewards are judged


def rollouts_of(record: Record, least: int = LEAST) -> Rollouts:
    """The rollouts of a run.

    Raises:
        Lacking: there are fewer than `least`.
    """
    if len(record.rollouts) < least:
        raise Lacking(f"{least} rollouts; the run has {len(record.rollouts)}")
    return record.rollouts


@check(*ONLINE, live=True)
def dead_reward(record: Record) -> Finding | None:
    """Every reward is the same, from the start."""
    import numpy as np

    rollouts = rollouts_of(record)
    rewards = rollouts.array("reward")
    scored = rewards[np.isfinite(rewards)]
    if len(rollouts.steps) < 5 or not len(scored) or np.ptp(scored) > 0:
        return None
    value, bound = float(scored[0]), 3 / len(scored)
    chosen = np.isfinite(rewards)
    status, stage = _commonest(rollouts, chosen)
    cut = float(rollouts.array("cut").mean())
    if value > 0 and status == "ok":
        return Finding(
            "look",
            f"Every reward is {value:g}: nothing is left to learn",
            f"all {len(scored)} rollouts of {len(rollouts.steps)} steps",
            "take harder data, or stop here",
            rollouts.show(chosen),
        )
    cure = "read three of the rows; grade them with another reward; or begin with SFT"
    if cut > 0.5:
        cure = "raise generation.max_new_tokens, or set generation.stop"
    return Finding(
        "stop",
        f"The reward is dead: {value:g} for every response",
        f"all {len(scored)} rollouts of {len(rollouts.steps)} steps, commonest status"
        f" {status}{f' at stage {stage}' if stage else ''}, {cut:.0%} cut at"
        f" max_new_tokens; a success rate above {bound:.2%} is ruled out (95 %)",
        cure,
        rollouts.show(chosen),
    )


@check(*ONLINE)
def groups_without_variance(record: Record) -> Finding | None:
    """Most groups hold one reward only, and give no gradient."""
    import numpy as np

    rollouts = rollouts_of(record)
    chosen = rollouts.last(WINDOW)
    groups: dict[int, list[float]] = {}
    for group, reward in zip(
        rollouts.array("group")[chosen], rollouts.array("reward")[chosen], strict=True
    ):
        groups.setdefault(int(group), []).append(float(reward))
    several = {number: each for number, each in groups.items() if len(each) > 1}
    if not several:
        raise Lacking("groups of more than one response")
    flat = {number for number, each in several.items() if max(each) == min(each)}
    share = len(flat) / len(several)
    every = rollouts.array("reward")
    every = every[np.isfinite(every)]
    # a dead reward is told of by its own check
    if share <= 0.5 or not len(every) or np.ptp(every) == 0:
        return None
    top = every.max()
    solved = sum(several[number][0] == top for number in flat) / len(flat)
    evidence = (
        f"{share:.0%} of {len(several)} groups in the last {WINDOW} steps with"
        f" rollouts; of these {solved:.0%} have the highest reward throughout"
    )
    rows = rollouts.show(chosen & np.isin(rollouts.array("group"), list(flat)))
    if solved > 0.5:
        return Finding(
            "note",
            "Most groups are solved: they give no gradient any more",
            evidence,
            "take harder questions, or stop here",
            rows,
        )
    return Finding(
        "stop" if share > 0.9 else "look",
        "Most groups have one reward only, and give no gradient",
        evidence,
        "take easier questions, or more responses for each (train.num_generations)",
        rows,
    )


@check(*ONLINE, live=True)
def format_stuck(record: Record) -> Finding | None:
    """No response has the form that the reward asks for."""
    import numpy as np

    rollouts = rollouts_of(record)
    chosen = rollouts.last(WINDOW)
    form = rollouts.array("format")[chosen]
    if not np.isfinite(form).any():
        raise Lacking("a reward with a part for the format")
    unparsed = float((rollouts.array("status")[chosen] == "unparsed").mean())
    formed = np.nanmax(rollouts.array("format"))
    if len(rollouts.steps) < WINDOW or formed > 0 or unparsed <= 0.5:
        return None
    # what is cut before it ends has no form: `truncated` tells of that
    if rollouts.array("cut")[chosen].mean() > 0.5:
        return None
    return Finding(
        "stop",
        "No response has the form that the reward asks for",
        f"the format part is 0 in all {len(rollouts)} rollouts; {unparsed:.0%} of the"
        f" last {WINDOW} steps are unparsed",
        "grade a right answer written by hand with this reward and prompt: who opens"
        " the tags, the prompt or the response? Then data.prompt or the reward",
        rollouts.show(chosen),
    )


@check(*ONLINE)
def right_but_refused(record: Record) -> Finding | None:
    """Responses that end in the truth earn nothing."""
    rollouts = rollouts_of(record)
    chosen = rollouts.last(WINDOW)
    refused = rollouts.array("holds_truth") & chosen
    share = float(refused.sum() / chosen.sum())
    if share <= 0.1 or refused.sum() < 20:
        return None
    status, stage = _commonest(rollouts, refused)
    return Finding(
        "stop",
        "Responses that end in the right answer earn nothing",
        f"{int(refused.sum())} of {int(chosen.sum())} rollouts of the last {WINDOW}"
        f" steps end in the truth, but are {status}"
        f"{f' at stage {stage}' if stage else ''}",
        "read the rows: a prompt that asks for the reward's form, or a reward that"
        " reads this one (`math`)",
        rollouts.show(refused),
    )


@check(*ONLINE)
def grader_faults(record: Record) -> Finding | None:
    """Responses that the grader could not judge."""
    import numpy as np

    rollouts = rollouts_of(record)
    failed = np.isin(rollouts.array("status"), ["timeout", "error"])
    share = float(failed.mean())
    if share <= 0.01 or failed.sum() < 3:
        return None
    status, stage = _commonest(rollouts, failed)
    return Finding(
        "look",
        "The grader fails: its zeros are noise",
        f"{int(failed.sum())} of {len(rollouts)} rollouts ({share:.1%}) end as timeout"
        f" or error, most as {status}{f' at stage {stage}' if stage else ''}",
        "a longer deadline (grading.seconds), or mend the reward",
        rollouts.show(failed),
    )


@check(*ONLINE)
def reward_gamed(record: Record) -> Finding | None:
    """The reward rises while an eval falls."""
    rollouts = rollouts_of(record)
    series = _means(rollouts)
    repeated = _repeated_evals(record)
    if not repeated:
        raise Lacking("an eval that runs more than once (evals.NAME.every)")
    for name, evals in repeated.items():
        best = max(evals, key=lambda each: each.summary["value"])
        last = evals[-1]
        half = math.hypot(*(_error(each.summary) for each in (best, last)))
        fall = best.summary["value"] - last.summary["value"]
        since = [mean for step, mean in series.items() if step > best.step]
        if best is last or fall <= 2 * half or not rises(since):
            continue
        return Finding(
            "stop",
            f"The reward rises while {name} falls: the reward is being gamed",
            f"{name} {best.summary['metric']} fell from {best.summary['value']:.3f}"
            f" (step {best.step}) to {last.summary['value']:.3f} (step {last.step}),"
            f" the reward rose from {since[0]:.3f} to {since[-1]:.3f}",
            f"read the best paid responses; grade them with a second reward; go back"
            f" to step {best.step}",
            rollouts.show(rollouts.array("reward") == max(rollouts.reward)),
        )
    return None


def _repeated_evals(record: Record) -> dict[str, list[Any]]:
    by_name: dict[str, list[Any]] = {}
    for each in record.evals:
        numbers = [each.summary.get(key) for key in ("value", "low", "high")]
        if all(isinstance(number, int | float) for number in numbers):
            by_name.setdefault(each.name, []).append(each)
    return {name: evals for name, evals in by_name.items() if len(evals) > 1}


def _error(summary: Any) -> float:
    return (summary["high"] - summary["low"]) / (2 * 1.96)


def _means(rollouts: Rollouts) -> dict[int, float]:
    """The mean reward of each step."""
    sums: dict[int, list[float]] = {}
    for step, reward in zip(rollouts.step, rollouts.reward, strict=True):
        if math.isfinite(reward):
            sums.setdefault(step, []).append(reward)
    return {step: math.fsum(each) / len(each) for step, each in sorted(sums.items())}


def _commonest(rollouts: Rollouts, chosen: NDArray[Any]) -> tuple[str, str]:
    indices = chosen.nonzero()[0]
    pairs = Counter((rollouts.status[i], rollouts.stage[i]) for i in indices)
    return pairs.most_common(1)[0][0]
