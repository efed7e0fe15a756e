"""What `align eval` does: several evals on several models, as the command line says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.endpoint.judges import JudgeClient
from alignkit.errors import InputError, nearest
from alignkit.evaluate import (
    SAMPLING,
    EvalRequest,
    Planned,
    Progress,
    StoredResponses,
    evaluate,
    own_request,
    plan_eval,
)
from alignkit.evaluate.engines import EngineChoice, slug, step_of
from alignkit.evaluate.trained import Trained, as_trained, otherwise
from alignkit.grading import Grader
from alignkit.recipe import options
from alignkit.run import writing

if TYPE_CHECKING:
    from alignkit.plugins import Plugin, Registry

Settings = dict[str, dict[str, Any]]  # sampling, options, data
_ROWS = "data:"


def requests(
    registry: Registry,
    names: Sequence[str],
    reward: str | None,
    runs: Iterable[Trained] = (),
) -> list[EvalRequest]:
    """The evals of these names, with their defaults; `data:FILE` is that of a file's
    rows, graded by `reward` (`NAME[:OPTION=VALUE,…]`). An eval of one's own is found in
    the recipes of `runs`.

    Raises:
        InputError: no such eval, file or reward, or one of both without the other.
    """
    found: dict[str, EvalRequest] = {}
    for name in dict.fromkeys(names):
        own = (run.own(name, registry) for run in runs)
        if name.startswith(_ROWS):
            request = _of_file(registry, name, reward)
        else:
            known = next(filter(None, own), None)
            request = known or EvalRequest.of(registry.get("eval", name))
        if request.plugin.name in found:
            raise InputError(
                f"two files are called {request.plugin.name}: evaluate one at a time,"
                " or rename one"
            )
        found[request.plugin.name] = request
    if reward and not any(name.startswith(_ROWS) for name in names):
        raise InputError(
            f"--reward grades rows of your own: name them as data:FILE; {names[0]} has"
            " a score of its own"
        )
    return list(found.values())


def _of_file(registry: Registry, name: str, reward: str | None) -> EvalRequest:
    path = Path(name.removeprefix(_ROWS))
    if not name.removeprefix(_ROWS):
        raise InputError(f"{name}: expected data:FILE")
    if not reward:
        raise InputError(
            f"{name}: rows need a reward that grades them: --reward NAME"
            f" ({', '.join(registry.names('reward'))})"
        )
    called, stated = options.named(reward, "--reward")
    grader = registry.get("reward", called)
    data = {"dataset": "jsonl", "path": str(path)}
    return own_request(f"{_ROWS}{slug(path.stem)}", grader, stated, data)


def settings(
    registry: Registry, plugins: Sequence[Plugin], sets: Sequence[str]
) -> dict[str, Settings]:
    """By eval, from `KEY=VALUE` (for every eval that has it) and `EVAL.KEY=VALUE`.

    Raises:
        InputError: every text that no eval can use.
    """
    changes: dict[str, Settings] = {
        plugin.name: {"sampling": {}, "options": {}, "data": {}} for plugin in plugins
    }
    problems: list[str] = []
    for text in sets:
        try:
            _place(text, registry, plugins, changes)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return changes


def _place(
    text: str,
    registry: Registry,
    plugins: Sequence[Plugin],
    changes: dict[str, Settings],
) -> None:
    names = ", ".join(changes)
    expected = f"KEY=VALUE or EVAL.KEY=VALUE with one of {names}"
    key, value = options.assignment(text, "--set", expected)
    scope, _, name = key.rpartition(".")
    if scope and scope not in changes:
        raise InputError(f"--set {text}: expected {expected}")
    known = set(SAMPLING)
    taken = False
    for plugin in plugins:
        if scope not in ("", plugin.name):
            continue
        dataset = registry.get("dataset", plugin.value.data.get("dataset", "jsonl"))
        homes = {
            "sampling": SAMPLING,
            "options": plugin.options(),
            "data": dataset.options(),
        }
        known |= {one for names in homes.values() for one in names}
        home = next((home for home, names in homes.items() if name in names), None)
        if home is not None:
            changes[plugin.name][home][name] = value
            taken = True
    if not taken:
        raise InputError(f"--set {text}: no such setting; {nearest(name, known)}")


def plan_all(
    requests: Iterable[EvalRequest],
    registry: Registry,
    stored: StoredResponses | None,
) -> list[Planned]:
    """All evals ready to run.

    Raises:
        InputError: every problem of all of them.
    """
    planned: list[Planned] = []
    problems: list[str] = []
    for request in requests:
        try:
            planned.append(plan_eval(request, registry, stored))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return planned


def plan_each(
    requests: Sequence[EvalRequest],
    seed: int | None,
    models: Sequence[str],
    registry: Registry,
    announce: Callable[[str], None],
) -> dict[str, list[Planned]]:
    """All evals of each model ready to run, of a run's model as the run measured it but
    for what is typed (`requests`, `seed`), which `announce` is told.

    Raises:
        InputError: every problem of all of them.
    """
    planned: dict[str, list[Planned]] = {}
    problems: list[str] = []
    alike: list[Planned] | None = None  # of models that are of no run
    for model in models:
        run = Trained.of(model)
        if run is None and alike is not None:
            planned[model] = alike
            continue
        given = [(r, "") if run is None else as_trained(r, seed, run) for r in requests]
        try:
            planned[model] = plan_all((request for request, _ in given), registry, None)
        except InputError as error:
            problems += error.problems
            continue
        if run is None:
            alike = planned[model]
            continue
        for one, (_, line) in zip(planned[model], given, strict=True):
            measured = one.request.plugin.name in run.evals
            announce(line if measured else line + otherwise(one, run))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return planned


@dataclass(frozen=True, kw_only=True)
class Session:
    """What `align eval` does. Results of a model go to a folder of its own below
    `root`, or into `root` itself where it is for one model alone.
    """

    planned: Mapping[str, Sequence[Planned]]  # by model, or by file of responses
    choice: EngineChoice
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
        _require_writable(self.root)
        stored = self.stored is not None
        how = {"api": self.choice.api, "dtype": self.choice.dtype}
        with Grader() as grader:
            for name, evals in self.planned.items():
                folder = self.root if self.own_root else self.root / slug(name)
                with self._engine(name, folder, waiting(name)) as engine:
                    for planned in evals:
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


def _require_writable(root: Path) -> None:
    """Results have a place before a model is loaded.

    Raises:
        MissingError: the folder cannot be made, or nothing can be written into it.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    with writing(root), tempfile.TemporaryFile(dir=there) as file:
        file.write(b"x")
