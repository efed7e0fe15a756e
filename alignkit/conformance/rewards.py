"""Proof that a reward scores alike whatever stands beside it, and survives hostile
text.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator, Sequence

from alignkit.conformance.check import Test, picklable, unless
from alignkit.conformance.responses import HOSTILE, ORDINARY, PROMPT
from alignkit.grading import BoundReward, Grader, bind_plugin
from alignkit.plugins import Plugin, Registry
from alignkit.types import Score

Value = tuple[float, str | None]


def reward_tests(plugin: Plugin, registry: Registry) -> Iterator[tuple[str, Test]]:
    """The tests of a reward with its default options, in the grading workers."""
    bound = bind_plugin(plugin, {})
    yield "picklable", functools.partial(picklable, bound.function)
    with Grader(workers=2) as grader:
        yield "deterministic", functools.partial(_deterministic, bound, grader)
        yield "batch equals serial", functools.partial(_serial, bound, grader)
        yield "order does not matter", functools.partial(_order, bound, grader)
        yield "inputs unchanged", functools.partial(_purity, bound, grader)
        yield "hostile strings in time", functools.partial(_hostile, bound, grader)


def _scores(
    bound: BoundReward, grader: Grader, responses: Sequence[str]
) -> list[Score]:
    count = len(responses)
    rows = grader.score(
        bound, list(responses), ["42"] * count, [PROMPT] * count, [{}] * count
    )
    return [row.score for row in rows]


def _values(
    bound: BoundReward, grader: Grader, responses: Sequence[str]
) -> list[Value]:
    return [(s.reward, s.status) for s in _scores(bound, grader, responses)]


def _deterministic(bound: BoundReward, grader: Grader) -> str | None:
    first = _values(bound, grader, ORDINARY)
    # another process and another hash seed, so no cache and no set order
    with Grader(workers=1) as fresh:
        return _unequal(first, _values(bound, fresh, ORDINARY))


def _serial(bound: BoundReward, grader: Grader) -> str | None:
    together = _values(bound, grader, ORDINARY)
    return _unequal(together, [_values(bound, grader, [text])[0] for text in ORDINARY])


def _order(bound: BoundReward, grader: Grader) -> str | None:
    forwards = _values(bound, grader, ORDINARY)
    # the first one's cache would answer for the reward
    with Grader(workers=1) as fresh:
        return _unequal(forwards, _values(bound, fresh, ORDINARY[::-1])[::-1])


def _purity(bound: BoundReward, grader: Grader) -> str | None:
    """A reward outside the pool gets the very lists that other rewards and the
    rollouts' file get after it.
    """
    count = len(ORDINARY)
    columns: dict[str, list[object]] = {
        "responses": list(ORDINARY),
        "truths": ["42"] * count,
        "prompts": [PROMPT] * count,
        "metadatas": [{"id": str(i), "tags": ["a"]} for i in range(count)],
    }
    before = copy.deepcopy(columns)
    grader.score(bound, *columns.values())  # type: ignore[arg-type]
    changed = [name for name in columns if columns[name] != before[name]]
    return unless(
        not changed, f"writes into its {', '.join(changed)}; make a copy first"
    )


def _unequal(first: Sequence[Value], second: Sequence[Value]) -> str | None:
    for text, one, other in zip(ORDINARY, first, second, strict=True):
        if one != other:
            return f"{text!r} scored {one}, then {other}"
    return None


def _hostile(bound: BoundReward, grader: Grader) -> str | None:
    started = time.monotonic()
    scores = dict(zip(HOSTILE, _scores(bound, grader, HOSTILE), strict=True))
    for text, score in scores.items():
        if score.status == "error":
            why = score.explanation.strip().splitlines()[-1]
            return f"crashed on {text[:60]!r}: {why}"
    late = [text for text, score in scores.items() if score.status == "timeout"]
    if late:
        return (
            f"{len(late)} of {len(HOSTILE)} took longer than {bound.deadline:g} s,"
            f" first {late[0][:60]!r}"
        )
    seconds = time.monotonic() - started
    return unless(seconds <= bound.deadline * len(HOSTILE), f"took {seconds:.0f} s")
