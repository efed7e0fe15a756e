"""What an eval keeps on disk while it works: one appended row per completion, so that a
killed call goes on.

A row is appended when it is generated (`status: open`) and again when it is scored; the
last one counts. A finished eval rewrites the file with one row per completion.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignkit.errors import InputError
from alignkit.provenance import OLD, differences, is_old, measured_by
from alignkit.run import append_rows, lock, read_rows, write_json, write_rows, writing
from alignkit.run.files import read_json
from alignkit.run.rows import Row, plain

THIS_RUN = "this run"  # the model of evals in a run's folder, wherever that lies
OPEN = "open"  # the status of a completion that is not scored yet
Key = tuple[str, int]  # (sample id, number of the completion)


class Store:
    """The folder `<eval>@<step>`: settings.json, samples.jsonl, summary.json.

    Args:
        folder: made when it is not there; held by a lock until `close`.
        settings: what the completions depend on; a folder of other settings is refused.
        scoring: what the scores depend on; when it differs from the stored one, scores
            are dropped and completions kept.
        resume: False throws away what is there.
        prompt: its name; settings hold the hash of its text.

    Raises:
        InputError: other settings, or another process at work in the folder.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        scoring: Mapping[str, Any],
        resume: bool,
        prompt: str | None = None,
    ) -> None:
        self.folder = folder
        self.prompt = prompt
        self.rows: dict[Key, Row] = {}
        self.adapted: list[str] = []  # what a server did not take, in earlier calls
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            self._held = undo.enter_context(lock(folder))
            self._open(settings, scoring, resume)
            undo.pop_all()

    def _open(
        self, settings: Mapping[str, Any], scoring: Mapping[str, Any], resume: bool
    ) -> None:
        folder = self.folder
        if not resume:
            # The settings last: rows without them would be taken for rows of any
            # settings.
            for name in ("samples.jsonl", "summary.json", "settings.json"):
                (folder / name).unlink(missing_ok=True)
        given = plain({"settings": settings, "scoring": scoring})
        known = self._known(given["settings"])
        if (folder / "summary.json").is_file():
            self.adapted = _adapted(folder / "summary.json")
        if (folder / "samples.jsonl").is_file():
            for row in read_rows(folder / "samples.jsonl"):
                self.rows[_key(row)] = row
        self.regraded = ""  # why stored scores were dropped
        if known is not None and known.get("scoring") != given["scoring"]:
            if any(row["status"] != OPEN for row in self.rows.values()):
                self.regraded = _why(known.get("scoring", {}), given["scoring"])
            self.rows = {key: unscored(row) for key, row in self.rows.items()}
            write_rows(folder / "samples.jsonl", self.rows.values())
        write_json(folder / "settings.json", {**given, "prompt": self.prompt})

    def _known(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self.folder / "settings.json"
        if not path.is_file():
            return None
        try:
            known = read_json(path)
            old = known["settings"]
        except (InputError, KeyError) as error:
            raise InputError(
                f"{path} is damaged; pass --no-resume to start anew, or another --out"
            ) from error
        # 0.1 knew a run by the path that was typed
        own = ("model", "model_state") if settings.get("model") == THIS_RUN else ()
        now = {key: value for key, value in settings.items() if key not in own}
        names = (known.get("prompt"), self.prompt)
        if differing := list(in_words(old, now, names)):
            raise InputError(
                f"{self.folder} holds results of other settings, which are never mixed"
                f" ({'; '.join(differing)}); pass another --out, or --no-resume to"
                " replace them"
            )
        return dict(known)

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows; they replace earlier ones of the same completion."""
        new = list(rows)
        append_rows(self.folder / "samples.jsonl", new)
        self.rows.update({_key(row): row for row in new})

    def finish(self, keys: Iterable[Key], summary: Mapping[str, Any]) -> None:
        """Write samples.jsonl anew, the given rows first and in this order, and
        summary.json.
        """
        first = list(keys)
        asked = set(first)
        rest = [row for key, row in self.rows.items() if key not in asked]
        write_rows(
            self.folder / "samples.jsonl", [*(self.rows[k] for k in first), *rest]
        )
        write_json(self.folder / "summary.json", summary)

    def close(self) -> None:
        """Release the folder."""
        self._held.release()


def _adapted(summary: Path) -> list[str]:
    try:
        sampling = read_json(summary)["provenance"]["sampling"]
        return [str(notice) for notice in sampling.get("adapted", ())]
    except (InputError, LookupError, TypeError, AttributeError):
        return []  # of another version, or torn: it is written anew


def in_words(
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    prompts: tuple[str | None, str | None],
) -> Iterator[str]:
    """What of `now` is other than `there`; `prompts` are the names of both prompts."""
    for key, value in now.items():
        old = there.get(key)
        if old == value:
            continue
        if key == "prompt":
            yield _prompts(*prompts)
        elif key == "model_state":
            yield "the files of the model were changed since"
        elif isinstance(old or {}, Mapping) and isinstance(value or {}, Mapping):
            before, after = dict(old or {}), dict(value or {})
            for inner in dict.fromkeys([*before, *after]):
                if before.get(inner) != after.get(inner):
                    told = (_told(side, inner) for side in (before, after))
                    yield "{}: {} {} there, {} now".format(key, inner, *told)
        else:
            yield f"{key}: {old!r} there, {value!r} now"


def _prompts(there: str | None, now: str | None) -> str:
    if there and there == now:
        return f"the text of the prompt {now} was changed since"
    return f"prompt: {there or 'another'} there, {now or 'none'} now"


def _told(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if settings.get(key) is not None else "not stated"


def _key(row: Row) -> Key:
    name, number = row["id"], row["sample"]
    assert name is not None and number is not None, "of a sample of an eval"
    return name, number


def _why(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two ways to score differ, in words."""
    if is_old(before.get("grader", {})):
        return f"they are of {OLD}"
    sides = [
        {part: measured_by(value) for part, value in scoring.items() if value}
        for scoring in (before, now)
    ]
    return "; ".join(differences(*sides))


def unscored(row: Row) -> Row:
    """The row as it was generated."""
    blank: Row = {"reward": None, "status": OPEN, "parts": {}, "verdicts": []}
    return {**row, **blank, "stage": "", "explanation": "", "vote": None}


def model_state(model: str) -> str | None:
    """What tells whether weights, settings or tokenizer under a path were changed:
    files' names, sizes and times.
    """
    if model == THIS_RUN:
        return None
    folder = Path(model)
    folder = folder / "model" if (folder / "manifest.json").is_file() else folder
    weights = (
        sorted(p for kind in ("*.safetensors", "*.bin") for p in folder.glob(kind))
        if folder.is_dir()
        else []
    )
    if not weights:
        return None
    weights += sorted(p for kind in ("*.json", "*.jinja") for p in folder.glob(kind))
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weights]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()
