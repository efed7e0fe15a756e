"""Tasks of lm-evaluation-harness: find and load them, and say which cannot be done here."""

import contextlib
import difflib
import functools
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit import AlignError, InputError, MissingError


@dataclass(frozen=True)
class Loaded:
    """A task, and its requests by question."""

    task: Any
    requests: Mapping[int, Sequence[Any]]


# What was loaded in this process, by folder and name: a score needs the task itself.
TASKS: dict[tuple[str | None, str], Loaded] = {}
GROUPS: dict[tuple[str | None, str], Any] = {}


def load_tasks(name: str, folder: str | None) -> dict[str, Any]:
    """The tasks of a name (a task, a group, a tag) by their own names.

    Raises:
        InputError: no such task, or one that cannot be done here. MissingError: the
            package or the data are not on this machine.
    """
    manager = _manager(folder)
    if name not in manager.task_index:
        close = difflib.get_close_matches(name, manager.all_tasks, n=1)
        hint = (
            f"did you mean 'lm:{close[0]}'?" if close else "lm-eval ls tasks lists them"
        )
        more = "further ones: --data FOLDER of task YAMLs"
        if folder is not None:
            places = {
                n: e.yaml_path for n, e in manager.task_index.items() if e.yaml_path
            }
            root = Path(folder).resolve()
            own = sorted(
                n for n, p in places.items() if p.resolve().is_relative_to(root)
            )
            more = (
                f"{folder} was read, and these were read there: {', '.join(own[:20])}"
            )
        raise InputError(f"lm-eval has no task '{name}'; {hint} ({more})")
    for task, settings in _leaves(manager.task_index, name):
        if why := _beyond(settings):
            raise InputError(f"lm:{name}: its task '{task}' {why}")
    _check_alike(name, dict(_leaves(manager.task_index, name)))
    with explained(name):
        found = manager.load([name])
    groups = found.get("groups", {}).items()
    GROUPS.update({(folder, called): group for called, group in groups})
    return dict(found["tasks"])


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What a task's own code raises, in words."""
    try:
        # standard output is the command's own, perhaps JSON
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except AlignError:
        raise
    except (OSError, ImportError) as error:
        raise MissingError(
            f"lm:{name} cannot be loaded: {_said(error)}. Its data come from the Hub; a"
            " task YAML in a folder of yours (--data FOLDER) can name local ones:"
            " `dataset_path: json`, `dataset_kwargs: {data_files: …}`"
        ) from error
    except Exception as error:
        raise InputError(f"lm:{name} cannot be loaded: {_said(error)}") from error


def version_of(name: str, task: Any, folder: str | None) -> str:
    """The task with a hash of what decides its scores beside the package: its settings,
    and the code in a folder of one's own.
    """
    settings = task.dump_config()
    for place in ("metadata", "dataset_path", "dataset_kwargs"):
        settings.pop(place, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for file in sorted(Path(folder).rglob("*.py")) if folder else ():
        digest.update(file.read_bytes())
    return f"{name} {digest.hexdigest()[:16]}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


@functools.cache
def _manager(folder: str | None) -> Any:
    """The index of all tasks, which takes seconds."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingError(
            f"evals lm:… need the package 'lm-eval' ({error}): pip install"
            " 'alignkit[lm-eval]'"
        ) from error
    if folder is not None and not Path(folder).is_dir():
        raise MissingError(f"there is no folder of task YAMLs {folder}")
    return TaskManager(include_path=folder)


def _leaves(
    index: Mapping[str, Any], name: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(task, its settings) of all tasks below a name, none of them loaded."""
    entry = index[name]
    settings = entry.cfg or {}
    if entry.kind.name == "TAG":
        for one in sorted(entry.tags & index.keys()):
            yield from _leaves(index, one)
    elif entry.kind.name != "GROUP":
        yield name, settings
    else:
        for one in settings.get("task") or ():
            inner = one if isinstance(one, str) else one.get("group", one.get("task"))
            if isinstance(inner, str) and inner in index:
                yield from _leaves(index, inner)
            elif isinstance(one, Mapping):
                yield str(inner), dict(one)


def _check_alike(name: str, leaves: Mapping[str, Mapping[str, Any]]) -> None:
    kinds = {one.get("output_type") == "generate_until" for one in leaves.values()}
    if len(kinds) > 1:
        shown = " ".join(f"lm:{task}" for task in list(leaves)[:12])
        raise InputError(
            f"lm:{name} both generates answers and compares likelihoods; name its tasks:"
            f" {shown}{' …' * (len(leaves) > 12)}"
        )


def _beyond(settings: Mapping[str, Any]) -> str:
    """Why a task cannot be done here; nothing where it can."""
    if settings.get("unsafe_code"):
        return (
            "runs code that the model wrote, which alignkit does not: use `lm_eval"
            " --confirm_run_unsafe_code` in a sandbox"
        )
    if settings.get("output_type") == "loglikelihood_rolling":
        return "asks for the likelihood of whole texts, which no engine gives"
    if int(settings.get("repeats") or 1) > 1:
        return (
            f"draws each question {settings['repeats']} times and votes by a filter of"
            " its own; the plain task with --samples gives pass@k and maj@k"
        )
    if settings.get("doc_to_image") or settings.get("doc_to_audio"):
        return "shows images or sounds, which no engine reads"
    return ""
