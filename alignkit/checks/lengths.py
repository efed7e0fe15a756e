"""Whether the length of responses is what it should be."""

from __future__ import annotations

from alignkit.checks.finding import Finding, check
from alignkit.checks.rewards import ONLINE, rollouts_of
from alignkit.checks.trend import WINDOW, mean, rises, series
from alignkit.records import Record


@check(*ONLINE, live=True)
def truncated(record: Record) -> Finding | None:
    """Responses are cut at max_new_tokens."""
    rollouts = rollouts_of(record)
    chosen = rollouts.last(WINDOW)
    cut = rollouts.array("cut") & chosen
    share = float(cut.sum() / chosen.sum())
    if share <= 0.3:
        return None
    limit = record.setting("generation.max_new_tokens")
    begun = rollouts.array("step") <= rollouts.steps[:WINDOW][-1]
    early = float(rollouts.array("cut")[begun].mean())
    return Finding(
        "stop" if share > 0.8 else "look",
        "Responses are cut before they end",
        f"{share:.0%} of {int(chosen.sum())} rollouts of the last {WINDOW} steps are cut"
        f" at max_new_tokens ({limit}), {early:.0%} of the first {WINDOW}: the reward"
        " reaches short answers only",
        "raise generation.max_new_tokens, or set generation.stop",
        rollouts.show(cut),
    )


@check(*ONLINE)
def cut_is_wrong(record: Record) -> Finding | None:
    """What is cut is always wrong, and more and more is cut."""
    rollouts = rollouts_of(record)
    cut = rollouts.array("cut")
    by_step = [cut[rollouts.array("step") == step].mean() for step in rollouts.steps]
    recent = mean(by_step[-WINDOW:])
    wrong = rollouts.array("status")[cut] != "ok"
    # above 30 % the truncation itself is told of
    if cut.sum() < 50 or wrong.mean() < 0.98 or not 0.1 < recent <= 0.3:
        return None
    if not rises([float(share) for share in by_step]):
        return None
    return Finding(
        "look",
        "Long thought is punished: what is cut is wrong, and more is cut",
        f"{wrong.mean():.0%} of {int(cut.sum())} cut rollouts are not right; the share"
        f" that is cut rose from {mean(by_step[:WINDOW]):.0%} to {recent:.0%}",
        "raise generation.max_new_tokens, or train.mask_truncated_completions: true",
        rollouts.show(cut),
    )


@check("grpo", "rloo")
def length_explosion(record: Record) -> Finding | None:
    """Wrong responses grow faster than right ones, and the reward does not follow."""
    _, lengths = series(record, "train/response_length", 50)
    _, rewards = series(record, "train/reward", 50)
    _, right = series(record, "train/response_length_correct", 50)
    _, wrong = series(record, "train/response_length_wrong", 50)
    growth = [mean(each[-WINDOW:]) / mean(each[:WINDOW]) for each in (wrong, right)]
    longer = mean(lengths[-WINDOW:]) / mean(lengths[:WINDOW])
    if longer < 1.5 or not rises(lengths) or growth[0] <= 1.2 * growth[1]:
        return None
    if rises(rewards[len(rewards) // 2 :]):
        return None
    return Finding(
        "look",
        "Wrong responses grow longer, and the reward does not follow",
        f"wrong responses are {growth[0]:.1f} times as long as in the first {WINDOW}"
        f" logged steps, right ones {growth[1]:.1f} times; the reward of the second"
        " half does not rise",
        "loss.normalize: constant (Dr. GRPO); a length that is divided by makes long"
        " wrong responses cheap",
    )
