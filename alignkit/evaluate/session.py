"""Several evals on several models, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.endpoint.judges import JudgeClient
from alignkit.evaluate import Planned, Progress, StoredResponses, evaluate
from alignkit.evaluate.engines import EngineChoice, slug, step_of
from alignkit.grading import Grader


@dataclass(frozen=True, kw_only=True)
class Session:
    """What `align eval` does. Results of a model go to a folder of its own below
    `root`, or into `root` itself where it is for one model alone.
    """

    planned: Sequence[Planned]
    choice: EngineChoice
    models: Sequence[str]  # none with stored responses
    stored: StoredResponses | None
    root: Path
    own_root: bool
    judge: JudgeClient | None
    resume: bool

    def run(
        self,
        progress: Callable[[str], AbstractContextManager[Progress]],
        announce: Callable[[str], None],
        waiting: Callable[[str], Callable[[float], None]],
    ) -> Iterator[dict[str, Any]]:
        """The summary of each eval on each model, as it is there.

        Args:
            progress: opened for each eval by its name.
            announce: told what is kept, what judging will cost.
            waiting: of a model, what is told the seconds that its server takes.
        """
        stored = [] if self.stored is None else [f"responses:{self.stored.path}"]
        how = {"api": self.choice.api, "dtype": self.choice.dtype}
        with Grader() as grader:
            for name in stored or self.models:
                folder = self.root if self.own_root else self.root / slug(name)
                with self._engine(name, folder, waiting(name)) as engine:
                    for planned in self.planned:
                        with progress(planned.request.plugin.name) as report:
                            yield evaluate(
                                planned,
                                engine,
                                folder,
                                model=name if stored else None,
                                how={
                                    key: value
                                    for key, value in how.items()
                                    if value not in (None, "auto")
                                },
                                step=0 if stored else step_of(name),
                                judge=self.judge,
                                grader=grader,
                                resume=self.resume,
                                progress=report,
                                announce=announce,
                            )

    def _engine(
        self, model: str, folder: Path, waiting: Callable[[float], None]
    ) -> AbstractContextManager[Any]:
        if self.stored is not None:
            return nullcontext()
        return closing(self.choice.open(model, folder / "serve.log", waiting))
