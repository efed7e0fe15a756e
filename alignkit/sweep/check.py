"""Check a sweep before anything of it runs: every variant loaded and planned, none
equal, the metric known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit import checks, plan, recipe
from alignkit.errors import InputError, MissingError
from alignkit.recipe.schema import Sampled, walk
from alignkit.recipe.schema.sections import Eval
from alignkit.recipe.tree import Node
from alignkit.sweep.spec import Spec, put

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.recipe import Difference, Recipe

TRAINING = (
    "train/reward",
    "train/loss",
    "train/entropy",
    "train/response_length",
    "train/grad_norm",
)
_LABEL = re.compile(r"[\w.+-][\w.,=+-]*")
# with a budget of tokens or seconds, how many times the base's steps a variant may take
_ROOM = 4


@dataclass(frozen=True)
class Variant:
    """One checked variant."""

    label: str
    recipes: Mapping[int, Recipe]  # by seed
    differences: Sequence[Difference]  # of the base
    steps: int | None  # optimizer steps at most, where the method says


@dataclass(frozen=True)
class Checked:
    """A sweep that may start. The base, where it is a variant, comes first."""

    spec: Spec
    variants: Sequence[Variant]
    metric: str

    def plan(self) -> dict[str, Any]:
        """What would be run, for programs: {changes: {key: [base, here]}} by variant."""
        return {
            "name": self.spec.name,
            "metric": self.metric,
            "seeds": list(self.variants[0].recipes),
            "variants": {
                variant.label: {
                    "steps": variant.steps,
                    "changes": {
                        one.key: [_stated(one.a), _stated(one.b)]
                        for one in variant.differences
                    },
                }
                for variant in self.variants
            },
        }


def _stated(value: object) -> object:
    return None if value is recipe.ABSENT else value


def check_sweep(spec: Spec, registry: Registry) -> Checked:
    """Load and plan every variant.

    Raises:
        InputError: everything that is wrong with any variant. MissingError: what this
            machine lacks.
    """
    load = partial(_load, spec, registry)
    base = load(None)
    seeds, base_steps = list(spec.seeds or [base.config.seed]), None
    if spec.budget:
        base_steps = _steps(plan.plan(base, registry))
    variants, problems, missing = [], [], []
    if len(set(seeds)) < len(seeds):
        problems.append(f"seeds: {', '.join(map(str, seeds))}: give each seed once")
    for label, change in spec.changes.items():
        try:
            variant, plans = _variant(
                spec, label, change, seeds, base, base_steps, load, registry
            )
        except InputError as error:
            problems += [f"variant {label}: {text}" for text in error.problems]
            continue
        variants.append(variant)
        problems += [
            f"variant {label}: {text}" for planned in plans for text in planned.wrong
        ]
        missing += [text for planned in plans for text in planned.missing]
    variants.sort(key=lambda variant: bool(variant.differences))  # the base first
    problems += _repeated(variants)
    if spec.budget:
        problems += _budget_faults(spec, base, base_steps, variants)
    live = [each.name for each in checks.CHECKS if each.live]
    for rule in spec.stop:
        if rule.metric is not None and rule.metric not in TRAINING:
            problems.append(
                f"stop: metric '{rule.metric}' is unknown; known: {', '.join(TRAINING)}"
            )
        if rule.check is not None and rule.check not in live:
            problems.append(
                f"stop: check '{rule.check}' is unknown; known: {', '.join(live)}"
            )
    metric, unknown = _metric(spec, variants, registry)
    problems += unknown
    if problems:
        raise InputError(*dict.fromkeys(problems), "nothing was started")
    if missing:
        if Path(plan.MINI).name not in (overlay.name for overlay in spec.overlays):
            missing.append(f"to see it run small: --with {plan.MINI}")
        raise MissingError(*dict.fromkeys(missing))
    return Checked(spec, variants, metric)


def _load(
    spec: Spec,
    registry: Registry,
    change: Node | None,
    seed: int | None = None,
    name: str | None = None,
) -> Recipe:
    for key, value in (("seed", seed), ("name", name)):
        if change is not None and value is not None:
            change = put(change, (key,), Node(value, change.origin))
    return recipe.load(spec.base, spec.overlays, spec.sets, registry, change=change)


def _variant(
    spec: Spec,
    label: str,
    change: Node,
    seeds: Sequence[int],
    base: Recipe,
    base_steps: int | None,
    load: Callable[..., Recipe],
    registry: Registry,
) -> tuple[Variant, list[plan.Plan]]:
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"{change.origin}: a variant's name may hold letters, digits and . , = + -"
            " _ only"
        )
    for key in ("name", "seed"):
        if isinstance(change.value, dict) and key in change.value:
            raise InputError(
                f"{change.value[key].origin}: the sweep itself gives every run its"
                f" {key}; drop it here"
            )
    stated = load(change, base.config.seed, base.config.name)
    differences = [
        d for d in recipe.differences(base, stated) if walk.matters(d.key.split("."))
    ]
    plans = plan.plan(stated, registry)
    steps = _steps(plans)
    if spec.budget and base_steps and steps and differences:
        limit = base_steps if spec.budget == "steps" else _ROOM * base_steps
        if limit != steps:
            set_here = [
                d.key
                for d in differences
                if d.key in ("train.max_steps", "train.num_train_epochs")
            ]
            if set_here:
                raise InputError(
                    f"it sets {set_here[0]}, while the budget (equal: {spec.budget})"
                    " decides when to end"
                )
            change = put(change, ("train", "max_steps"), Node(limit, change.origin))
            steps = limit
    recipes = {seed: load(change, seed, f"{spec.name}-{label}") for seed in seeds}
    return Variant(label, recipes, differences, steps), plans


def _steps(plans: Sequence[plan.Plan]) -> int | None:
    if len(plans) != 1:
        return None
    return plans[0].arithmetic.get("optimizer steps")


def _repeated(variants: Sequence[Variant]) -> list[str]:
    """Variants that change nothing, and variants that are equal."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    bases = [variant.label for variant in variants if not variant.differences]
    problems += [
        f"variant {label} changes nothing, as {bases[0]} already does"
        for label in bases[1:]
    ]
    for variant in variants:
        text = repr(
            [
                (d.key, float(d.b) if type(d.b) is int else d.b)
                for d in variant.differences
            ]
        )
        if variant.differences and text in seen:
            problems.append(f"variants {seen[text]} and {variant.label} are equal")
        seen[text] = variant.label
    if len(variants) == 1 and len(bases) == 1 and len(variants[0].recipes) < 2:
        problems.append(
            f"variant {bases[0]} changes nothing and is the only one: there is nothing"
            " to compare"
        )
    return problems


def _budget_faults(
    spec: Spec, base: Recipe, base_steps: int | None, variants: Sequence[Variant]
) -> list[str]:
    if base_steps is None:
        return [
            f"budget: method {base.config.method} has no number of steps that could be"
            " made equal"
        ]
    if spec.budget == "steps":
        return []
    problems = []
    if variants and variants[0].differences:
        problems.append(
            "budget: what the base spends is what the others may spend, so it must be a"
            " variant (name: {})"
        )
    for variant in variants:
        scheduler = plan.setting(
            next(iter(variant.recipes.values())).stage, "lr_scheduler_type"
        )
        if not str(scheduler).startswith("constant"):
            problems.append(
                f"variant {variant.label}: train.lr_scheduler_type is {scheduler}; a"
                " budget of tokens or seconds needs a constant one, as a decaying"
                " learning rate depends on how many steps there will be"
            )
    return problems


def _metric(
    spec: Spec, variants: Sequence[Variant], registry: Registry
) -> tuple[str, list[str]]:
    """What decides (the file's metric, or the main one of the first eval, or the
    reward, or the loss), and faults.
    """
    trained = [
        list(r.stages.values())[-1:] or [r]
        for v in variants
        for r in v.recipes.values()
    ]
    configs = [recipe.stage for recipes in trained for recipe in recipes]
    evals = [
        f"eval/{name}/{_metric_of(name, entry, registry)}"
        for c in configs
        for name, entry in c.evals.items()
    ]
    rewarded = any(isinstance(c, Sampled) for c in configs)
    known = list(
        dict.fromkeys(
            [*evals, *(name for name in TRAINING if rewarded or name != "train/reward")]
        )
    )
    if spec.metric is None or not variants:
        return known[0], []
    if spec.metric in known:
        return spec.metric, []
    text = f"metric: '{spec.metric}' is unknown; known: {', '.join(known)}"
    return spec.metric, [text]


def _metric_of(name: str, entry: Eval, registry: Registry) -> str:
    if entry.reward is not None:  # rows of one's own, graded by it
        return "reward"
    metric: str = registry.get("eval", name).value.metric
    return metric
