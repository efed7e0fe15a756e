"""Whether the policy still explores, and whether it has collapsed."""

from __future__ import annotations

from alignkit.checks.finding import Finding, check
from alignkit.checks.trend import WINDOW, best_window, error, mean, rises, series
from alignkit.records import Record


@check("grpo", "rloo")
def entropy_collapse(record: Record) -> Finding | None:
    """The policy no longer explores, and learns nothing more."""
    _, entropies = series(record, "train/entropy", 3 * WINDOW)
    _, distinct = series(record, "train/distinct_responses", 3 * WINDOW)
    _, rewards = series(record, "train/reward", 3 * WINDOW)
    size = record.setting("train.num_generations") or 8
    first, last = mean(entropies[:WINDOW]), mean(entropies[-WINDOW:])
    share = mean(distinct[-WINDOW:]) / size
    if last >= 0.1 * first or share >= 0.25 or rises(rewards[len(rewards) // 2 :]):
        return None
    # what is solved need not be explored
    if mean(rewards[-WINDOW:]) >= 0.9 * max(rewards) > mean(rewards[:WINDOW]):
        return None
    return Finding(
        "look",
        "The policy no longer explores",
        f"entropy {first:.3f} -> {last:.3f} nats a token, {share:.0%} of a group's"
        " responses differ, and the reward of the second half does not rise",
        "a larger upper cliprange, a higher temperature, a lower learning rate, or"
        " train.beta",
    )


@check("grpo", "rloo", live=True)
def collapse(record: Record) -> Finding | None:
    """What was learnt is lost again."""
    steps, rewards = series(record, "train/reward", 3 * WINDOW)
    start, best = best_window(rewards)
    window, last = rewards[start : start + WINDOW], rewards[-WINDOW:]
    floor = min(rewards)
    fall = best - mean(last)
    spread = (error(window) ** 2 + error(last) ** 2) ** 0.5
    if fall <= 0.5 * (best - floor) or fall <= 4 * spread or fall <= 0.05:
        return None
    if start + WINDOW > len(rewards) - WINDOW:
        return None
    evidence = (
        f"reward {best:.3f} over steps {steps[start]} to {steps[start + WINDOW - 1]},"
        f" {mean(last):.3f} over the last {WINDOW}"
    )
    for name, unit in (("train/entropy", " nats a token"), ("train/update", "")):
        logged = dict(zip(*record.series(name), strict=True))
        pair = [logged.get(steps[start]), logged.get(steps[-1])]
        if None not in pair:
            evidence += f"; {name} {pair[0]:.3g} -> {pair[1]:.3g}{unit}"
    rate = record.setting("train.learning_rate")
    cure = (
        f"a third of the learning rate ({rate:g})" if rate else "a lower learning rate"
    )
    return Finding(
        "stop",
        "The policy collapsed: what was learnt is lost",
        evidence,
        f"{cure}, a smaller train.max_grad_norm, or train.beta; go back to a checkpoint"
        f" before step {steps[start + WINDOW - 1]}",
    )
