"""Whether the optimizer's steps are sound."""

from __future__ import annotations

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.checks.trend import WINDOW, median, series
from alignkit.records import Record

TRAINED = ("sft", "dpo", "grpo", "rloo")


@check(*TRAINED, live=True)
def zero_gradient(record: Record) -> Finding | None:
    """The gradient is 0 although there is something to learn."""
    steps, norms = series(record, "train/grad_norm", 5)
    flat = dict(zip(*record.series("train/groups_without_variance"), strict=True))
    zero = [
        step
        for step, norm in zip(steps, norms, strict=True)
        if norm == 0 and flat.get(step, 0.0) < 1
    ]
    recent = set(steps[-5:])
    if not recent <= set(zero):
        return None
    return Finding(
        "stop",
        "The gradient is zero: nothing is trained",
        f"train/grad_norm was 0 at {len(zero)} of {len(steps)} logged steps, the last 5"
        " among them, though the rewards or losses leave something to learn",
        "are weights frozen (LoRA's target_modules?), or does the loss plugin detach?"
        " `align plugins check` tells",
    )


@check(*TRAINED)
def gradient_spikes(record: Record) -> Finding | None:
    """The gradient's norm leaps."""
    steps, norms = series(record, "train/grad_norm", 3 * WINDOW)
    warm = max(WINDOW, _warmup(record, steps))
    leaps = [
        step
        for place, (step, norm) in enumerate(zip(steps, norms, strict=True))
        if place >= warm and norm > 10 * median(norms[max(0, place - 20) : place]) > 0
    ]
    if len(leaps) < 3:
        return None
    return Finding(
        "look",
        "The gradient leaps",
        f"at {len(leaps)} of {len(steps)} logged steps its norm is over ten times the"
        f" median of the 20 before: steps {', '.join(map(str, leaps[:6]))}",
        "read the rows of these steps; a lower train.max_grad_norm or learning rate",
    )


@check("grpo", "rloo")
def clipping(record: Record) -> Finding | None:
    """Many tokens are clipped."""
    _, shares = series(record, "train/clip_fraction", WINDOW)
    if record.setting("train.importance_sampling_level") == "sequence":
        raise Lacking("importance ratios by token; by sequence far more is clipped")
    share = median(shares[-WINDOW:])
    if share <= 0.2:
        return None
    return Finding(
        "stop" if share > 0.3 else "look",
        "Many tokens are clipped: the policy has left the one that sampled",
        f"median of train/clip_fraction over the last {WINDOW} logged steps {share:.0%}",
        "fewer updates a batch (train.num_iterations, steps_per_generation), or a lower"
        " learning rate",
    )


@check("grpo", "rloo")
def kl_blow_up(record: Record) -> Finding | None:
    """The policy leaves its reference."""
    if not record.setting("train.beta"):
        raise Lacking("train.beta above 0: without it the policy may drift")
    steps, values = series(record, "train/kl", WINDOW)
    level = median(values[-WINDOW:])
    if level <= 0.5:
        return None
    return Finding(
        "stop" if level > 2 else "look",
        "The policy leaves its reference",
        f"median of train/kl over the last {WINDOW} logged steps {level:.2f} nats (first"
        f" {median(values[:WINDOW]):.2f}, step {steps[-1]})",
        "a larger train.beta, or a lower learning rate",
    )


@check("grpo", "rloo")
def stale_sampler(record: Record) -> Finding | None:
    """vLLM samples from other weights than those that are trained."""
    _, gaps = series(record, "train/sync_difference/mean", 4)
    first, recent = max(gaps[:2]), median(gaps[-WINDOW:])
    if recent <= 5 * first or recent < 0.005:
        return None
    return Finding(
        "stop",
        "vLLM does not sample from the trained weights",
        f"its log-probs differ by {recent:.4f} nats (median of the last"
        f" {min(WINDOW, len(gaps))} syncs), in the first two by {first:.4f} at most",
        "check the sync (docs/vllm.md); rollouts since then are of an old policy",
    )


def _warmup(record: Record, steps: list[int]) -> int:
    """How many logged steps lie in the warm-up."""
    warm = record.setting("train.warmup_steps") or 0
    return sum(step <= warm for step in steps) if isinstance(warm, int) else 0
