"""Score completions: by the eval's function in the grading workers, or by a judge
model.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.evaluate.request import EvalRequest
from alignkit.evaluate.store import OPEN, Key, Store
from alignkit.plugins import bind, effective_options
from alignkit.provenance import identity, identity_of_function
from alignkit.run.rows import Row
from alignkit.sampling import REFUSED
from alignkit.thinking import behind_thinking
from alignkit.types import Sample, Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from alignkit.endpoint.judges import JudgeClient
    from alignkit.grading import Grader, Grading

DEADLINE = 5.0  # seconds that grading one completion may take
_ENDLESS = Score(
    0.0, "unparsed", stage="reasoning", explanation="its thinking does not end"
)
_CHUNK = 256  # completions graded between two writes to disk


class Scorer:
    """How the completions of one eval are scored. `identity` is what the scores depend
    on: also what samples say of it in their metadata, under `graded_by`.
    """

    def __init__(
        self,
        request: EvalRequest,
        judge: JudgeClient | None,
        grader: Grader | None,
        announce: Callable[[str], None],
        samples: Sequence[Sample],
    ) -> None:
        plugin, options = request.reward or (request.plugin, request.options)
        self.announce = announce
        self.plugin = request.plugin
        self.task = self.plugin.value.judge
        if judge and judge.config:
            self.task = judge.config.task
        self.judge = judge
        self.grader = grader
        self.cost: dict[str, Any] = {}
        self.reward = None
        if request.reward is not None:
            from alignkit.grading.bound import bind_plugin

            self.reward = bind_plugin(plugin, options)
        elif self.task is None:
            self.function = bind(plugin, plugin.value.score, options)
        elif judge is None:
            raise InputError(
                f"eval '{plugin.name}' is judged by a model; name one with --judge"
                " (align plugins list)"
            )
        code = identity(plugin)
        graded_by = {
            "name": plugin.name,
            "sha256": code.sha256,
            "options": effective_options(plugin, options),
            "reasoning": ", ".join(sorted({sample.reasoning for sample in samples})),
            "parts": code.parts,
            "not_covered": list(code.not_covered),
        }
        if by_data := {str(s.metadata.get("graded_by", "")) for s in samples} - {""}:
            graded_by["by_data"] = sorted(by_data)
        self.identity: dict[str, Any] = {"grader": graded_by, "judge": None}
        if self.task and judge:
            self.identity["judge"] = {"name": judge.judge.name, "model": judge.model}
            if judge.max_new_tokens is not None:
                self.identity["judge"]["max_new_tokens"] = judge.max_new_tokens
            if judge.config:
                self.identity["judge"]["config"] = judge.config.sha256
            create = judge.judge.create
            if create and (judges_by := identity_of_function(create)):
                self.identity["judge"]["parts"] = judges_by.parts

    def score(
        self,
        samples: Sequence[Sample],
        store: Store,
        keys: Sequence[Key],
        report: Callable[..., None],
    ) -> None:
        """Fill in every open row of `keys`; judged rows without a readable verdict stay
        open.
        """
        by_id = {s.id: s for s in samples}
        waiting = [key for key in keys if store.rows[key]["status"] == OPEN]
        refused = [k for k in waiting if store.rows[k]["finish_reason"] == REFUSED]
        # a refusal is no answer of the model: it counts in no mean
        store.add(
            {
                **store.rows[key],
                "status": REFUSED,
                "explanation": str(store.rows[key]["response"]),
            }
            for key in refused
        )
        waiting = [key for key in waiting if key not in set(refused)]
        endless = [key for key in waiting if _reply(by_id, store, key) is None]
        store.add(scored(store.rows[key], _ENDLESS) for key in endless)
        waiting = [key for key in waiting if store.rows[key]["status"] == OPEN]
        if not waiting:
            return
        if self.task is not None:
            self._judge(by_id, store, waiting, report)
        else:
            self._grade(by_id, store, waiting, report)

    def _grade(
        self,
        by_id: Mapping[str, Sample],
        store: Store,
        waiting: Sequence[Key],
        report: Any,
    ) -> None:
        from alignkit.grading import Grader

        with contextlib.nullcontext(self.grader) if self.grader else Grader() as grader:
            for start in range(0, len(waiting), _CHUNK):
                chunk = waiting[start : start + _CHUNK]
                rows = [store.rows[key] for key in chunk]
                graded = self._begin(grader, by_id, store, chunk).result()
                store.add(
                    self._settled(row, g.score)
                    for row, g in zip(rows, graded, strict=True)
                )
                report("score", start + len(rows), len(waiting))

    def _begin(
        self,
        grader: Grader,
        by_id: Mapping[str, Sample],
        store: Store,
        chunk: Sequence[Key],
    ) -> Grading:
        """The response is hostile input: a worker that can be killed grades it."""
        from alignkit.grading import Grading
        from alignkit.grading.bound import call_sample

        asked = [_sample(by_id[key[0]], store.rows[key]) for key in chunk]
        replies = [str(_reply(by_id, store, key)) for key in chunk]
        if self.reward is None:
            calls = list(zip(asked, replies, strict=True))
            if self.plugin.value.where == "process":
                return Grading(lambda: [call_sample(self.function, c) for c in calls])
            return grader.call(self.function, calls, DEADLINE)
        return grader.submit(
            self.reward,
            replies,
            [sample.truth for sample in asked],
            [sample.prompt for sample in asked],
            [dict(sample.metadata) for sample in asked],
        )

    def _settled(self, row: Row, score: Score) -> Row:
        """The row with its score. What a reward in this process could not have (a judge
        that is out of reach) is left open: it says nothing of the response.
        """
        outside = self.reward is not None and self.reward.where == "process"
        if outside and score.status == "error":
            return {**row, "explanation": f"not scored: {score.explanation}"}
        return scored(row, score)

    def _judge(
        self,
        by_id: Mapping[str, Sample],
        store: Store,
        waiting: Sequence[Key],
        report: Any,
    ) -> None:
        assert self.task is not None and self.judge is not None
        task, done = self.task, 0
        owner = {f"{name} {number}": (name, number) for name, number in waiting}

        def parse(name: str, answers: Sequence[str]) -> Score | None:
            return task.parse(by_id[owner[name][0]], answers)

        def finish(name: str, answers: Sequence[str]) -> None:
            nonlocal done
            score = parse(name, answers)
            assert score is not None, "accepted just now"
            store.add([scored(store.rows[owner[name]], score)])
            done += 1
            report("judge", done, len(waiting))

        requests = []
        for name, key in owner.items():
            reply = _reply(by_id, store, key)
            assert reply is not None
            conversations = task.conversations(by_id[key[0]], reply)
            if conversations:
                requests.append((name, conversations))
            else:
                finish(name, ())

        def readable(name: str, answers: Sequence[str]) -> bool:
            return parse(name, answers) is not None

        sampling = dict(task.sampling)
        if self.judge.max_new_tokens is not None:
            sampling["max_new_tokens"] = self.judge.max_new_tokens
        before = str(self.judge.estimate(requests, sampling, readable))
        self.announce(f"{self.plugin.name}: {before}")
        got = self.judge.ask(requests, sampling, readable, finish)
        store.add(
            {**store.rows[owner[name]], "explanation": f"not judged: {why}"}
            for name, why in got.open.items()
        )
        store.add(
            {**store.rows[owner[name]], "status": REFUSED, "explanation": words}
            for name, words in got.refused.items()
        )
        for notice in self.judge.notices:
            self.announce(f"{self.judge.judge.name}: {notice}")
        self.cost = {
            "estimate": before,
            "answers": got.asked,
            "reused": got.reused,
            "dollars": got.dollars,
            "refused": len(got.refused),
            "open": _reasons(got.open.values()),
            "adapted": self.judge.notices,
        }
        self.cost |= {
            "input_tokens": got.input_tokens,
            "output_tokens": got.output_tokens,
        }


def _sample(sample: Sample, row: Row) -> Sample:
    """The sample as its score sees it: with the likelihoods of its choices."""
    if not sample.choices:
        return sample
    told = {"loglikelihoods": row["metadata"].get("loglikelihoods")}
    return replace(sample, metadata={**sample.metadata, **told})


def _reasons(whys: Iterable[str]) -> dict[str, int]:
    """How often each reason left a judgement open, the commonest first."""
    return dict(Counter(why.partition(": ")[0] for why in whys).most_common())


def _reply(by_id: Mapping[str, Sample], store: Store, key: Key) -> str | None:
    """What of a completion is scored; None where its thinking does not end."""
    sample, response = by_id[key[0]], store.rows[key]["response"]
    if sample.reasoning == "keep" or sample.choices:
        return str(response)
    return behind_thinking(response, sample.prompt)


def scored(row: Row, score: Score) -> Row:
    """The row with its score."""
    assert score.status != OPEN
    found: Row = {
        "reward": score.reward,
        "status": score.status,
        "parts": dict(score.parts),
        "stage": score.stage,
        "explanation": score.explanation,
        "vote": score.answer,
    }
    return {**row, **found}
