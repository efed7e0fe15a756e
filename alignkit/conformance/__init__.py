"""`align plugins check`: does a plugin of any kind keep the contract of its kind?"""

from __future__ import annotations

import copy
import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alignkit import data, plugins
from alignkit.errors import AlignError, MissingError
from alignkit.types import Sample, Score

if TYPE_CHECKING:
    from alignkit.conformance.losses import Check
    from alignkit.grading import BoundReward, Grader
    from alignkit.plugins import Plugin, Registry

# What a model may write: each must get a score within the deadline, whatever the score.
HOSTILE = (
    "",
    "\x00",
    "\ud800 \u202e \x1b[31m",
    "</think> <answer>" + "9" * 5000 + "</answer>",
    "</think> <answer>9**9**9**9</answer>",
    "</think> <answer>9^{9^{9^9}}</answer>",
    "</think> <answer>(10!)!</answer>",
    r"\boxed{" * 3000,
    r"\boxed{\frac{1}{\frac{1}{\frac{1}{2}}}}",
    "{" * 10_000,
    r"\text{" * 5000,
    r"</think> <answer>\input{/etc/passwd}</answer>",
    "</think> <answer>__import__('os').getcwd()</answer>",
    "</think> <answer>١٢٣ ½ ∞ −5</answer>",
    "</think> <answer>1e999999</answer>",
    "word " * 20_000,
)
ORDINARY = (
    "it is 42",
    "<think> so </think> 42",
    "so </think> <answer> 42 </answer>",
    r"so \boxed{42}",
    "so </think> <answer>41</answer>",
    "",
)
PROMPT = "What is 6 x 7?\nAssistant: <think>"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def prove(plugin: Plugin, registry: Registry, laboratory: Any) -> list[Check]:
    """All checks of one plugin with its default options. `laboratory` is the tiny model
    for losses.
    """
    from alignkit.conformance.advantages import check_advantage
    from alignkit.conformance.losses import Check, check_loss

    if plugin.kind == "loss":
        return check_loss(plugin.value, laboratory())
    if plugin.kind == "advantage":
        return check_advantage(plugin.value)
    needed = [
        name
        for function in plugin.functions
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if needed:
        text = (
            f"not checked: it needs the option {', '.join(needed)}; its own tests must"
            " do it"
        )
        return [Check(plugin.kind, plugin.name, "options", None, text)]
    tests = {
        "reward": _reward,
        "eval": _eval,
        "judge": _judge,
        "dataset": _dataset,
        "prompt": _prompt,
    }.get(plugin.kind)
    if tests is None:
        return [Check(plugin.kind, plugin.name, "loads", True)]
    found = []
    for name, test in tests(plugin, registry):
        try:
            wrong = test()
        except MissingError as error:
            found.append(
                Check(plugin.kind, plugin.name, name, None, f"not checked: {error}")
            )
            continue
        except AlignError as error:
            wrong = str(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its crash is the result here
            wrong = f"raised {type(error).__name__}: {error}"
        found.append(Check(plugin.kind, plugin.name, name, wrong is None, wrong or ""))
    return found


Tests = Iterator[tuple[str, Callable[[], str | None]]]


def _reward(plugin: Plugin, registry: Registry) -> Tests:
    from alignkit.grading import Grader, bind_plugin

    bound = bind_plugin(plugin, {})
    yield "picklable", functools.partial(_picklable, bound.function)
    with Grader(workers=2) as grader:
        yield "deterministic", functools.partial(_deterministic, bound, grader)
        yield "batch equals serial", functools.partial(_serial, bound, grader)
        yield "order does not matter", functools.partial(_order, bound, grader)
        yield "inputs unchanged", functools.partial(_inputs_kept, bound, grader)
        yield "hostile strings in time", functools.partial(_hostile, bound, grader)


def _scores(
    bound: BoundReward, grader: Grader, responses: Sequence[str]
) -> list[Score]:
    graded = grader.score(
        bound,
        list(responses),
        ["42"] * len(responses),
        [PROMPT] * len(responses),
        [{}] * len(responses),
    )
    return [g.score for g in graded]


def _values(scores: Sequence[Score]) -> list[tuple[float, str | None]]:
    return [(s.reward, s.status) for s in scores]


def _deterministic(bound: BoundReward, grader: Grader) -> str | None:
    from alignkit.grading import Grader as Another

    first = _values(_scores(bound, grader, ORDINARY))
    # another process and another hash seed, so no cache and no set order
    with Another(workers=1) as fresh:
        return _unequal(first, _values(_scores(bound, fresh, ORDINARY)))


def _serial(bound: BoundReward, grader: Grader) -> str | None:
    together = _values(_scores(bound, grader, ORDINARY))
    return _unequal(
        together, [_values(_scores(bound, grader, [text]))[0] for text in ORDINARY]
    )


def _order(bound: BoundReward, grader: Grader) -> str | None:
    from alignkit.grading import Grader as Another

    forwards = _values(_scores(bound, grader, ORDINARY))
    # the first one's cache would answer for the reward
    with Another(workers=1) as fresh:
        return _unequal(forwards, _values(_scores(bound, fresh, ORDINARY[::-1]))[::-1])


def _inputs_kept(bound: BoundReward, grader: Grader) -> str | None:
    """A reward outside the pool gets the very lists that other rewards and the
    rollouts' file get after it.
    """
    count = len(ORDINARY)
    columns: dict[str, list[Any]] = {
        "responses": list(ORDINARY),
        "truths": ["42"] * count,
        "prompts": [PROMPT] * count,
        "metadatas": [{"id": str(i), "tags": ["a"]} for i in range(count)],
    }
    before = copy.deepcopy(columns)
    grader.score(bound, *columns.values())
    changed = [name for name in columns if columns[name] != before[name]]
    return (
        f"writes into its {', '.join(changed)}; make a copy first" if changed else None
    )


def _unequal(a: Sequence[Any], b: Sequence[Any]) -> str | None:
    for text, left, right in zip(ORDINARY, a, b, strict=True):
        if left != right:
            return f"{text!r} scored {left}, then {right}"
    return None


def _hostile(bound: BoundReward, grader: Grader) -> str | None:
    started = time.monotonic()
    scores = _scores(bound, grader, HOSTILE)
    crashed = [
        (t, s) for t, s in zip(HOSTILE, scores, strict=True) if s.status == "error"
    ]
    if crashed:
        text, score = crashed[0]
        return f"crashed on {text[:60]!r}: {score.explanation.strip().splitlines()[-1]}"
    late = [
        text for text, s in zip(HOSTILE, scores, strict=True) if s.status == "timeout"
    ]
    if late:
        return (
            f"{len(late)} of {len(HOSTILE)} took longer than {bound.deadline:g} s,"
            f" first {late[0][:60]!r}"
        )
    seconds = time.monotonic() - started
    return f"took {seconds:.0f} s" if seconds > bound.deadline * len(HOSTILE) else None


def _eval(plugin: Plugin, registry: Registry) -> Tests:
    spec = plugin.value

    def samples() -> str | None:
        found = _samples(plugin, registry)
        ids = [s.id for s in found]
        if len(set(ids)) < len(ids):
            return f"{len(ids)} samples have only {len(set(ids))} different ids"
        again = [s.id for s in _samples(plugin, registry)]
        return (
            None
            if ids == again
            else "the samples come in another order the second time"
        )

    yield "samples", samples
    if spec.score is not None:

        def scores() -> str | None:
            score = plugins.bind(plugin, spec.score, {})
            sample = next(iter(_samples(plugin, registry)), Sample("0", PROMPT, "42"))
            for text in (*ORDINARY, *HOSTILE):
                one, two = score(sample, text), score(sample, text)
                if not isinstance(one, Score):
                    return f"score returned {type(one).__name__}; expected Score"
                if (one.reward, one.status) != (two.reward, two.status):
                    return f"{text[:60]!r} scored {one.reward}, then {two.reward}"
            return None

        yield "scores", scores
    if spec.judge is not None:

        def judged() -> str | None:
            sample = next(iter(_samples(plugin, registry)))
            asked = spec.judge.conversations(sample, "a response")
            if not all(
                isinstance(m.get("content"), str)
                for conversation in asked
                for m in conversation
            ):
                return "a conversation with the judge must be messages with texts"
            unread = spec.judge.parse(sample, ["no verdict at all \x00"] * len(asked))
            return (
                "an unreadable verdict was counted; parse must return None"
                if unread is not None
                else None
            )

        yield "judge", judged


def _samples(plugin: Plugin, registry: Registry) -> list[Sample]:
    spec = plugin.value
    prompt = data.load_prompt(spec.prompt, registry)
    rows = data.load_rows({**spec.data, "limit": 50}, registry, seed=0)
    return list(
        plugins.bind(plugin, spec.samples, {})(
            rows, functools.partial(data.render, prompt)
        )
    )


def _judge(plugin: Plugin, registry: Registry) -> Tests:
    judge = plugin.value

    def endpoint() -> str | None:
        if judge.create is None and not judge.base_url.startswith(
            ("http://", "https://")
        ):
            return (
                f"base_url is {judge.base_url!r}; expected http(s)://…, or a `create`"
                " function"
            )
        return None

    def key() -> str | None:
        if judge.key is not None and not _NAME.fullmatch(judge.key):
            return (
                "key must be the NAME of an environment variable, never the key itself"
            )
        return None

    yield "endpoint", endpoint
    yield "key", key


def _dataset(plugin: Plugin, registry: Registry) -> Tests:
    def rows() -> str | None:
        found = data.load_rows({"dataset": plugin.name, "limit": 20}, registry, seed=0)
        again = data.load_rows({"dataset": plugin.name, "limit": 20}, registry, seed=0)
        return (
            None
            if data.fingerprint(found) == data.fingerprint(again)
            else "the rows differ the second time"
        )

    yield "rows", rows


def _prompt(plugin: Plugin, registry: Registry) -> Tests:
    def braces() -> str | None:
        value = "f(x) = {x} and {question} {0}"
        filled = str(data.render(plugin.value, {"question": value, "response": value}))
        return (
            None
            if value in filled.replace("\\\\", "\\")
            else f"braces in a question were changed: {filled[:200]!r}"
        )

    yield "braces", braces


def _picklable(function: Callable[..., Any]) -> str | None:
    import pickle

    pickle.loads(pickle.dumps(function))
    return None
