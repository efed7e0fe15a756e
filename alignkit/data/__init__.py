"""Rows of data: load them from a file, a folder or the Hub, and check their columns;
prompts that render them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from alignkit.data.files import file_rows, read_file
from alignkit.data.prompts import load_prompt, prompt_hash, render, render_pair
from alignkit.data.rows import (
    FileRow,
    Row,
    RowError,
    read_conversations,
    renamed,
    whole,
)
from alignkit.errors import InputError, MissingError, listing
from alignkit.grading.truths import missing_truth
from alignkit.plugins import bind, check_options

if TYPE_CHECKING:
    from alignkit.plugins import Plugin, Registry

__all__ = [
    "Row",
    "fingerprint",
    "iter_rows",
    "load_prompt",
    "load_rows",
    "needs_truth",
    "prompt_hash",
    "read_file",
    "read_rows",
    "render",
    "render_pair",
    "require_columns",
    "require_truth",
]


def load_rows(
    spec: Mapping[str, Any], registry: Registry, *, seed: int | None = None
) -> list[Row]:
    """All rows of `iter_rows`, in memory."""
    return list(iter_rows(spec, registry, seed=seed))


def iter_rows(
    spec: Mapping[str, Any], registry: Registry, *, seed: int | None = None
) -> Iterator[Row]:
    """One after another, the rows that `spec` describes: `dataset`, `split`, `path`, `correct` (those with
    a right response), `limit` (the first N of these), and the dataset's options.

    `seed` reaches a dataset that draws its rows, unless the spec has its own.

    Raises:
        InputError: an option the dataset does not have, a malformed file, or no rows at
            all.
        MissingError: the data are neither on this machine nor reachable.
    """
    core = {
        name: spec[name]
        for name in ("split", "path", "seed", "limit")
        if spec.get(name) is not None
    }
    plugin = registry.get("dataset", spec.get("dataset") or "jsonl")
    options = {
        k: v
        for k, v in spec.items()
        if k not in ("dataset", "split", "path", "seed", "limit", "correct")
    }
    if problems := check_options(plugin, options):
        raise InputError(*(text for _, text in problems))
    load = plugin.value.load
    accepted = inspect.signature(load).parameters
    if "path" in core and "path" not in accepted:
        raise InputError(
            f"dataset '{plugin.name}' is not read from a file, so it takes no path:"
            f" {core['path']}"
        )
    hint = accepted["split"].annotation if "split" in accepted else None
    splits = get_args(hint) if get_origin(hint) is Literal else ()
    if splits and "split" in core and core["split"] not in splits:
        raise InputError(
            f"dataset '{plugin.name}' has no split '{core['split']}'; it has"
            f" {', '.join(splits)}"
        )
    if seed is not None:
        core.setdefault("seed", seed)
    arguments = {name: value for name, value in core.items() if name in accepted}
    needed = {
        name
        for name, p in accepted.items()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    }
    if lacking := sorted(needed - {*options, *arguments}):
        raise InputError(
            f"dataset '{plugin.name}' needs {', '.join(lacking)} ({plugin.where})"
        )
    limit = spec.get("limit")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1")
    loaded = bind(plugin, load, options)(**arguments)
    if not isinstance(correct := spec.get("correct") or False, bool):
        raise InputError(f"correct is {correct!r}; expected true or false")
    if correct:
        from alignkit.data.correct import right_rows

        loaded = right_rows(loaded)
    row = None
    for row in islice(loaded, limit):
        yield dict(row)
    if row is None:
        source = core.get("path") or f"dataset '{plugin.name}'"
        raise InputError(f"{source} holds no rows ({dict(spec)})")


def read_rows(
    *,
    path: str | Path | None = None,
    local: Sequence[str] = (),
    hub: str | None = None,
    config: str | None = None,
    hub_file: str | None = None,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    stream: bool = False,
    conversations: bool = False,
) -> Iterable[Row]:
    """Rows from the first place that is named: `path`, the folder in the variable
    ALIGN_DATA, the Hub.

    `path` is a file, or a folder that holds one of the `local` names; so is ALIGN_DATA.
    `hub`, `config` and `split` go to `datasets.load_dataset`; `hub_file` reads one file
    of that repository. `columns` renames: {question: problem} takes `problem` for
    `question`; dots go into nested values (`chosen.value`, `conversations.0.value`).
    `stream` reads the rows one after another, for data too large to load whole: stop
    when there are enough. `conversations` makes prompt and response of `messages` and
    ShareGPT's `conversations`.
    """
    found = _local_file(path, local)
    rows = (
        _from_hub(hub, config, hub_file, split, local, stream)
        if found is None
        else file_rows(found)
    )
    if columns:
        rows = renamed(rows, columns)
    if conversations:
        rows = read_conversations(rows)
    return whole(rows) if stream else list(whole(rows))


def _local_file(path: str | Path | None, local: Sequence[str]) -> Path | None:
    if path is not None:
        given = Path(path).expanduser()
        try:
            found = given.exists()
        # a name too long, a folder that may not be looked into
        except OSError as error:
            raise InputError(f"{str(given)[:200]}: {error.strerror}") from error
        if found and given.is_dir():
            held = next(
                (given / name for name in local if (given / name).is_file()), None
            )
            if held is None:
                raise MissingError(
                    f"the folder {given} holds none of {listing(list(local))}; name a"
                    " file"
                )
            return held
        if not found:
            raise MissingError(
                f"there is no data file {given} (looked in {Path.cwd()})"
            )
        return given
    folder = os.environ.get("ALIGN_DATA")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise MissingError(f"ALIGN_DATA names {folder}, which is not a folder")
    return next(
        (Path(folder) / name for name in local if (Path(folder) / name).is_file()), None
    )


def _from_hub(
    hub: str | None,
    config: str | None,
    hub_file: str | None,
    split: str,
    local: Sequence[str],
    stream: bool,
) -> Iterator[FileRow]:
    folder = os.environ.get("ALIGN_DATA")
    state = f"it is now {folder}, which has no such file" if folder else "it is not set"
    ways = (
        f"set ALIGN_DATA to a folder that holds {' or '.join(local)} ({state})"
        if local
        else ""
    )
    ways += (
        ", or " if ways else ""
    ) + "name a file (`path:` in a recipe, --data on the command line)"
    if hub is None:
        raise MissingError(f"the data are not on this machine; {ways}")
    import datasets
    import httpx

    once = datasets.DownloadConfig(max_retries=1)
    try:
        if hub_file:
            files = f"hf://datasets/{hub}/{hub_file}"
            kind = "json" if "json" in hub_file else "csv"
            found = datasets.load_dataset(
                kind,
                data_files=files,
                split="train",
                streaming=stream,
                download_config=once,
            )
        else:
            found = datasets.load_dataset(
                hub, config, split=split, streaming=stream, download_config=once
            )
    # what datasets and huggingface_hub raise for all unreachable data
    except (OSError, httpx.HTTPError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise MissingError(
            f"dataset {hub} cannot be had from the Hub{offline}: {error}; {ways}"
        ) from error
    except ValueError as error:  # an unknown split or configuration
        raise InputError(f"dataset {hub}: {error}") from error
    for number, row in enumerate(found, 1):
        yield FileRow(number, f"{hub}: row {number}", dict(row))


def require_columns(
    rows: Sequence[Mapping[str, Any]], names: Iterable[str], who: str
) -> None:
    """Every row must have these columns, filled.

    Raises:
        RowError: the first row that lacks one, what it has, and how columns are
            mapped.
    """
    for number, row in enumerate(rows, 1):
        for name in names:
            if row.get(name) is None:
                has = listing(sorted(map(str, row)))
                raise RowError(
                    number,
                    f"{who} needs the column '{name}'; row {number} has {has}. Another"
                    f" column can serve: `columns: {{{name}: …}}` of the dataset"
                    " 'jsonl'",
                )


def needs_truth(reward: Plugin) -> bool:
    """Whether a reward cannot be called without a truth."""
    wanted = inspect.signature(reward.value.function).parameters
    return any(
        p in wanted and wanted[p].default is inspect.Parameter.empty
        for p in ("truth", "truths")
    )


def require_truth(reward: Plugin, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows without the truth that a reward needs: it would find all of them
    wrong.
    """
    if needs_truth(reward):
        require_columns(rows, ["truth"], f"reward '{reward.name}'")
        for number, row in enumerate(rows, 1):
            if why := missing_truth(row["truth"]):
                raise RowError(
                    number,
                    f"reward '{reward.name}' needs the column 'truth'; that of row"
                    f" {number} {why}",
                )


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """sha256 of the rows' content and order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
