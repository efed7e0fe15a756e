"""Whether the policy still explores, and whether it has collapsed."""

from __future__ import annotations

from alignkit.checks.finding import Finding, check
from alignkit.checks.trend import WINDOW, best_window, mean, noise, rises, series
from alignkit.records import Record

BRIEF = 3  # logged steps: what is lost may have lasted no longer


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


@check("grpo", "rloo", live=True, explains=("groups_without_variance", "truncated"))
def collapse(record: Record) -> Finding | None:
    """What was learnt is lost again."""
    steps, rewards = series(record, "train/reward", 2 * WINDOW)
    start, best = best_window(rewards[:-WINDOW], BRIEF)
    fall = best - mean(rewards[-WINDOW:])
    spread = noise(rewards) * (1 / BRIEF + 1 / WINDOW) ** 0.5
    # six, not two, as the best of many windows is high by chance
    if fall <= 0.5 * (best - min(rewards)) or fall <= max(6 * spread, 0.05):
        return None
    evidence = (
        f"reward {best:.3f} over steps {steps[start]} to {steps[start + BRIEF - 1]},"
        f" {mean(rewards[-WINDOW:]):.3f} over the last {WINDOW}"
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
        f" at or before step {steps[start + BRIEF - 1]}",
    )
