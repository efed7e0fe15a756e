"""Whether the loss of SFT and DPO is that of a model which learns."""

from __future__ import annotations

import math

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.checks.trend import WINDOW, mean, rises, series
from alignkit.records import Record


@check("sft", "dpo")
def overfit(record: Record) -> Finding | None:
    """The validation loss has turned while the training loss falls on."""
    steps, values = series(record, "validation/loss", 5)
    _, losses = series(record, "train/loss", WINDOW)
    best = min(range(len(values)), key=values.__getitem__)
    since = steps[-1] - steps[best]
    risen = values[-1] > 1.02 * values[best]
    falling = rises(losses[len(losses) // 2 :], -1)
    if since <= 0.1 * steps[-1] or not risen or not falling:
        return None
    return Finding(
        "look",
        "The model overfits: the validation loss has turned",
        f"least at step {steps[best]} ({values[best]:.3f}), {values[-1]:.3f} at step"
        f" {steps[-1]}, while the training loss falls",
        f"stop at step {steps[best]}, or train.load_best_model_at_end: true",
    )


@check("sft", live=True)
def no_loss(record: Record) -> Finding | None:
    """The loss is 0 or no number."""
    steps, values = record.series("train/loss")
    if len(values) < 3:
        raise Lacking(f"3 logged values of train/loss; the run has {len(values)}")
    bad = [
        step
        for step, value in zip(steps, values, strict=True)
        if value == 0 or not math.isfinite(value)
    ]
    if not set(steps[-3:]) <= set(bad):
        return None
    return Finding(
        "stop",
        "The loss is 0 or no number: nothing is trained on",
        f"{len(bad)} of {len(steps)} logged steps, the last three among them",
        "are all labels masked? `align data show` shows which tokens are trained on;"
        " train.max_length may cut the responses away",
    )


@check("sft")
def first_loss(record: Record) -> Finding | None:
    """The model knows far less than nothing, or everything, at its first step."""
    _, values = series(record, "train/nll")
    model = record.manifest.get("model")
    size = model.get("vocabulary") if isinstance(model, dict) else None
    if not isinstance(size, int) or size < 2:
        raise Lacking("the size of the vocabulary")
    uniform = math.log(size)
    first = values[0]
    if 0.1 <= first <= 1.2 * uniform:
        return None
    told = f"{first:.2f} nats a token at the first logged step"
    if first < 0.1:
        return Finding(
            "note",
            "The model knows the data already",
            told,
            "was it trained on these rows before? Or is the response in the prompt?",
        )
    return Finding(
        "look",
        "The model begins worse than by chance",
        f"{told}; chance is ln {size} = {uniform:.2f}",
        "tokenizer and chat template of another model? `align data show` shows the"
        " tokens",
    )


@check("sft", "dpo")
def divergence(record: Record) -> Finding | None:
    """The loss rises again and stays up."""
    name = "train/nll" if record.method == "sft" else "train/loss"
    steps, values = series(record, name, 4 * WINDOW)
    windows = [
        mean(values[start : start + WINDOW])
        for start in range(len(values) - WINDOW + 1)
    ]
    best = min(range(len(windows)), key=windows.__getitem__)
    if best + 2 * WINDOW > len(values) or windows[-1] <= 1.2 * windows[best]:
        return None
    if windows[-1] - windows[best] < 0.05:
        return None
    rate = record.setting("train.learning_rate")
    return Finding(
        "look",
        "Training diverges: the loss rises again",
        f"{name} {windows[best]:.3f} over steps {steps[best]} to"
        f" {steps[best + WINDOW - 1]}, {windows[-1]:.3f} over the last {WINDOW} logged",
        f"a third of the learning rate{f' ({rate:g})' if rate else ''}, more warm-up",
    )


@check("dpo")
def chosen_falls(record: Record) -> Finding | None:
    """The chosen responses become less likely (often harmless)."""
    steps, values = series(record, "train/rewards/chosen", 2 * WINDOW)
    if not rises(values, -1) or mean(values[-WINDOW:]) >= 0:
        return None
    _, rates = record.series("train/nll")
    lost = mean(rates[-WINDOW:]) - mean(rates[:WINDOW]) if rates else 0.0
    return Finding(
        "look" if lost > 1 else "note",
        "The chosen responses become less likely",
        f"train/rewards/chosen {mean(values[:WINDOW]):.3f} ->"
        f" {mean(values[-WINDOW:]):.3f} at step {steps[-1]}"
        + (f"; {lost:+.2f} nats a token" if rates else ""),
        "usual after SFT on the same responses; else an SFT term, a larger loss.beta, a"
        " lower learning rate; compare lengths and evals",
    )


@check("dpo")
def trivial_pairs(record: Record) -> Finding | None:
    """The pairs are told apart at once."""
    steps, accuracies = series(record, "train/rewards/accuracies", WINDOW)
    _, losses = series(record, "train/loss", WINDOW)
    rows = record.manifest.get("rows")
    train = rows.get("train") if isinstance(rows, dict) else None
    count = train.get("rows", 0) if isinstance(train, dict) else 0
    if count < 200:
        raise Lacking(f"200 pairs; the run has {count}: few are soon known by heart")
    early = max(2, len(steps) // 10)
    if min(accuracies[1:early]) <= 0.98 or max(losses[1:early]) >= 0.05:
        return None
    return Finding(
        "look",
        "The pairs are told apart at once",
        f"accuracy {min(accuracies[1:early]):.2f}, loss {max(losses[1:early]):.3f} by"
        f" step {steps[early - 1]}",
        "does length, source or a mark give the chosen one away? `align data show`"
        " and `align data stats` on both sides",
    )
