"""Proof that a reward scores a response by its own truth alone, whatever stands beside
or before it, and survives hostile text.
"""

from __future__ import annotations

import copy
import functools
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from alignkit.conformance.check import Note, Test, picklable, unless
from alignkit.conformance.responses import FORMS, HOSTILE, ORDINARY, PROMPT, TRUTHS
from alignkit.grading import BoundReward, Grader, bind_plugin
from alignkit.plugins import Plugin, Registry
from alignkit.types import Score

Value = tuple[float, str | None]
Pair = tuple[str, str]  # a response and its truth

# every response beside every truth, so that equal responses have other truths
CROSSED: tuple[Pair, ...] = tuple((r, t) for r in ORDINARY for t in TRUTHS)
ROUNDS = 4  # of all pairs in one process: more than 200 calls
STYLE = "say so with Reward(…, style=True) where that is meant"


def reward_tests(plugin: Plugin, registry: Registry) -> Iterator[tuple[str, Test]]:
    """The tests of a reward with its default options, where it runs in training."""
    bound = bind_plugin(plugin, {})
    apart = functools.cache(functools.partial(_apart, bound))
    yield "picklable", functools.partial(picklable, bound.function)
    yield "deterministic", lambda: _deterministic(bound, apart())
    yield "truths apart", lambda: _unequal(apart(), _fresh(bound, CROSSED)[0])
    yield "order does not matter", lambda: _order(bound, apart())
    yield "always the same", functools.partial(_steady, bound)
    yield "batch equals serial", lambda: _serial(bound, apart())
    yield "arguments in place", lambda: _in_place(bound, apart())
    if not plugin.value.style:
        yield "reads the truth", lambda: _reads_truth(apart())
        yield "right above wrong", lambda: _right_is_above(apart())
    with Grader(workers=2) as grader:
        yield "inputs unchanged", functools.partial(_purity, bound, grader)
        yield "hostile strings in time", functools.partial(_hostile, bound, grader)


def _fresh(
    bound: BoundReward, pairs: Sequence[Pair], rounds: int = 1
) -> list[dict[Pair, Value]]:
    """The scores of the pairs in a process that has seen no others, so many times."""
    if bound.where == "pool":
        return _rounds(bound, pairs, rounds)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as child:
        return child.submit(_rounds, bound, pairs, rounds).result()


def _rounds(
    bound: BoundReward, pairs: Sequence[Pair], rounds: int
) -> list[dict[Pair, Value]]:
    with Grader(workers=1) as grader:
        # another deadline, lest the grader answers from its memory
        return [
            _values(replace(bound, deadline=bound.deadline + n / 1000), grader, pairs)
            for n in range(rounds)
        ]


def _values(
    bound: BoundReward, grader: Grader, pairs: Sequence[Pair]
) -> dict[Pair, Value]:
    scores = _scores(bound, grader, pairs)
    values = [(score.reward, score.status) for score in scores]
    return dict(zip(pairs, values, strict=True))


def _scores(bound: BoundReward, grader: Grader, pairs: Sequence[Pair]) -> list[Score]:
    responses, truths = (list(column) for column in zip(*pairs, strict=True))
    count = len(pairs)
    rows = grader.score(bound, responses, truths, [PROMPT] * count, [{}] * count)
    return [row.score for row in rows]


def _apart(bound: BoundReward) -> dict[Pair, Value]:
    """Every pair, where no process has seen two truths, so none can be mistaken for
    another.
    """
    values: dict[Pair, Value] = {}
    for truth in TRUTHS:
        values |= _fresh(bound, [pair for pair in CROSSED if pair[1] == truth])[0]
    return values


def _deterministic(bound: BoundReward, apart: dict[Pair, Value]) -> str | None:
    """Another process and another hash seed, so no cache and no order of a set."""
    again = [pair for pair in CROSSED if pair[1] == TRUTHS[0]]
    return _unequal(apart, _fresh(bound, again)[0])


def _order(bound: BoundReward, apart: dict[Pair, Value]) -> str | None:
    return _unequal(apart, _fresh(bound, CROSSED[::-1])[0])


def _steady(bound: BoundReward) -> str | None:
    """One process, more than 200 calls, each pair several times."""
    first, *again = _fresh(bound, CROSSED, ROUNDS)
    for later in again:
        if wrong := _unequal(first, later):
            return wrong
    twice = [pair for pair in CROSSED for _ in range(2)]
    return _repeated(bound, twice) if bound.form == "batch" else None


def _repeated(bound: BoundReward, pairs: Sequence[Pair]) -> str | None:
    """In one batch equal responses to one question have equal scores."""
    with Grader(workers=1) as grader:
        scores = _scores(bound, grader, pairs)
    for pair, one, other in zip(pairs[::2], scores[::2], scores[1::2], strict=True):
        if (one.reward, one.status) != (other.reward, other.status):
            return (
                f"{pair[0]!r} twice in a batch scored {one.reward:g}, then"
                f" {other.reward:g}"
            )
    return None


def _serial(bound: BoundReward, apart: dict[Pair, Value]) -> str | None:
    """Alone, as beside others."""
    with Grader(workers=1) as grader:
        alone = {
            pair: value
            for one in CROSSED[:: len(TRUTHS) + 1]
            for pair, value in _values(bound, grader, [one]).items()
        }
    return _unequal(apart, alone)


def _in_place(bound: BoundReward, apart: dict[Pair, Value]) -> str | None:
    """Whether it reads the response for the truth and the truth for the response."""
    if _tells_truths_apart(apart):
        return None
    stated = [form.replace("ANSWER", TRUTHS[0]) for form in FORMS]
    exchanged = [(truth, answer) for answer in stated for truth in TRUTHS]
    values = _fresh(bound, exchanged)[0]
    return unless(
        not any(len({values[t, answer] for t in TRUTHS}) > 1 for answer in stated),
        "the truth changes nothing, but a right answer given as the truth does: the"
        " arguments look exchanged",
    )


def _tells_truths_apart(values: dict[Pair, Value]) -> bool:
    """Whether a response scores otherwise beside another truth."""
    return any(len({values[r, truth] for truth in TRUTHS}) > 1 for r in ORDINARY)


def _reads_truth(apart: dict[Pair, Value]) -> str | None:
    if len(set(apart.values())) == 1:
        return Note(f"every ordinary response scores {next(iter(apart.values()))[0]:g}")
    if not _tells_truths_apart(apart):
        return Note(f"the truth changes no score: it grades style or format? {STYLE}")
    return None


def _right_is_above(apart: dict[Pair, Value]) -> str | None:
    low = [p for p, (reward, status) in apart.items() if status == "ok" and reward <= 0]
    if low:
        return Note(f"{low[0][0]!r} is `ok` with a reward of 0 or less; {STYLE}")
    return None


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


def _unequal(first: dict[Pair, Value], second: dict[Pair, Value]) -> str | None:
    for pair, other in second.items():
        if first[pair] != other:
            response, truth = pair
            return (
                f"{response!r} with the truth {truth!r} scored {first[pair]}, then"
                f" {other}"
            )
    return None


def _hostile(bound: BoundReward, grader: Grader) -> str | None:
    started = time.monotonic()
    pairs = [(text, TRUTHS[0]) for text in HOSTILE]
    scores = dict(zip(HOSTILE, _scores(bound, grader, pairs), strict=True))
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
