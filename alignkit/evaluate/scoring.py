"""Score completions: by the eval's function in the grading workers, or by a judge
model.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.errors import InputError
from alignkit.evaluate.store import OPEN, Key, Row, Store
from alignkit.plugins import bind, effective_options
from alignkit.types import Sample, Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from alignkit.endpoint.judges import JudgeClient
    from alignkit.grading import Grader
    from alignkit.plugins import Plugin

DEADLINE = 5.0  # seconds that grading one completion may take
_CHUNK = 256  # completions graded between two writes to disk


class Scorer:
    """How the completions of one eval are scored. `identity` is what the scores depend
    on.
    """

    def __init__(
        self,
        plugin: Plugin,
        options: Mapping[str, Any],
        judge: JudgeClient | None,
        grader: Grader | None,
        announce: Callable[[str], None],
    ) -> None:
        self.announce = announce
        self.plugin = plugin
        self.task = plugin.value.judge
        self.judge = judge
        self.grader = grader
        self.cost: dict[str, Any] = {}
        if self.task is None:
            self.function = bind(plugin, plugin.value.score, options)
        elif judge is None:
            raise InputError(
                f"eval '{plugin.name}' is judged by a model; name one with --judge"
                " (align plugins list)"
            )
        graded_by = {
            "name": plugin.name,
            "sha256": source_hash(plugin),
            "options": effective_options(plugin, options),
        }
        who = (
            {"name": judge.judge.name, "model": judge.model}
            if self.task and judge
            else None
        )
        self.identity = {"grader": graded_by, "judge": who}

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
        waiting = [key for key in keys if store.rows[key]["reward"] is None]
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
                rows = [store.rows[key] for key in waiting[start : start + _CHUNK]]
                # The response is hostile input: a worker that can be killed grades it.
                calls = [(by_id[row["id"]], row["response"]) for row in rows]
                graded = grader.call(self.function, calls, DEADLINE).result()
                store.add(
                    scored(row, g.score) for row, g in zip(rows, graded, strict=True)
                )
                report("score", start + len(rows), len(waiting))

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
            conversations = task.conversations(
                by_id[key[0]], store.rows[key]["response"]
            )
            if conversations:
                requests.append((name, conversations))
            else:
                finish(name, ())

        def readable(name: str, answers: Sequence[str]) -> bool:
            return parse(name, answers) is not None

        before = str(self.judge.estimate(requests, task.sampling, readable))
        self.announce(f"{self.plugin.name}: {before}")
        got = self.judge.ask(requests, task.sampling, readable, finish)
        store.add(
            {**store.rows[owner[name]], "explanation": f"not judged: {why}"}
            for name, why in got.open.items()
        )
        self.cost = {
            "estimate": before,
            "answers": got.asked,
            "reused": got.reused,
            "dollars": got.dollars,
        }
        self.cost |= {
            "input_tokens": got.input_tokens,
            "output_tokens": got.output_tokens,
        }


def scored(row: Row, score: Score) -> Row:
    """The row with its score."""
    found = {"reward": score.reward, "status": score.status, "parts": dict(score.parts)}
    assert score.status != OPEN
    return {**row, **found, "stage": score.stage, "explanation": score.explanation}


def source_hash(plugin: Plugin) -> str:
    """sha256 of the code that scores: the plugin's file, the helpers beside it, and the
    grading that alignkit itself lends to it.
    """
    files = [plugin.file, *sorted(plugin.file.parent.glob("_*.py"))]
    if plugin.value.score is not None:
        files += sorted((Path(__file__).parents[1] / "grading").glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
