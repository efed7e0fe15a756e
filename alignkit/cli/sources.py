"""What `align data` works on: a file, a dataset by name, or a recipe's training data."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import allow_option, kit_option, load_recipe, load_registry
from alignkit.errors import InputError, MissingError
from alignkit.recipe.schema import Stage

if TYPE_CHECKING:
    from alignkit.plugins import Registry
    from alignkit.types import Prompt

ROW_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz")


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """SOURCE and what says how to read it."""

    @functools.wraps(command)
    def placed(source: str, **flags: Any) -> Any:
        from alignkit.data.rows import RowError

        try:
            return command(source=source, **flags)
        except RowError as error:
            # of the rows that `correct` has kept, the numbers are not the file's
            exact = not any(text.startswith("correct") for text in flags["sets"])
            place = _place(source, error.number if exact else 0)
            raise InputError(f"{place}: {error}") from error

    named: Callable[..., Any] = placed
    sets = "An option of the dataset; of a recipe: any key (repeatable)."
    columns = "Read the file's column THEIRS as NAME (repeatable)."
    for option in (
        kit_option,
        allow_option,
        click.option("--limit", type=click.IntRange(1), help="Only the first rows."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=sets),
        click.option(
            "--column", "columns", multiple=True, metavar="NAME=THEIRS", help=columns
        ),
        click.option(
            "--data",
            metavar="PATH",
            help="Where the dataset lies (also: the variable ALIGN_DATA).",
        ),
        click.option(
            "--split", "part", metavar="NAME", help="The split of the dataset."
        ),
        click.argument("source", metavar="SOURCE"),
    ):
        named = option(named)
    return named


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How rows become prompts."""
    command = click.option(
        "--prompt-file", metavar="FILE", help="A prompt template, taken byte for byte."
    )(command)
    return click.option(
        "--prompt", metavar="NAME", help="A prompt (align plugins list)."
    )(command)


@dataclass(slots=True)
class Source:
    """Rows, which lie on the disk, and what a recipe says about them (None for a file or
    dataset).
    """

    rows: Sequence[dict[str, Any]]
    registry: Registry
    prompt: Prompt | None = None
    config: Stage | None = None


def open_source(
    source: str,
    *,
    part: str | None = None,
    data: str | None = None,
    columns: Sequence[str] = (),
    sets: Sequence[str] = (),
    limit: int | None = None,
    kit: Sequence[str] = (),
    prompt: str | None = None,
    prompt_file: str | None = None,
) -> Source:
    """Load SOURCE: a recipe (.yaml), a file of rows, or a dataset's name.

    Raises:
        InputError: wrong flags or malformed rows. MissingError: data that are not here.
    """
    from alignkit.data import iter_rows, load_prompt
    from alignkit.data.spool import Spool
    from alignkit.recipe import options

    if prompt and prompt_file:
        raise InputError("--prompt and --prompt-file exclude each other")
    asked = {"file": prompt_file} if prompt_file else prompt
    if Path(source).suffix in (".yaml", ".yml"):
        if data or columns:
            raise InputError(
                "a recipe names its own data: --data and --column do not apply; --set"
                " data.train.… does"
            )
        return _of_recipe(source, part, sets, limit, kit, asked)
    registry = load_registry(kit=kit)
    spec: dict[str, Any] = dict(options.assignment(text, "--set") for text in sets)
    spec |= {
        name: value
        for name, value in (("split", part), ("path", data), ("limit", limit))
        if value is not None
    }
    if is_file(source):
        if not exists(source):
            raise MissingError(
                f"there is no data file {source} (looked in {Path.cwd()})"
            )
        if part and Path(source).is_file():
            raise InputError(
                f"--split {part}: the file {source} has no splits; --split names one of"
                " a dataset"
            )
        if data:
            raise InputError(
                f"--data {data}: {source} is a file itself; --data says where a dataset"
                " lies"
            )
        spec |= {"dataset": "jsonl", "path": source}
    else:
        spec["dataset"] = source
    if columns:
        spec["columns"] = dict(options.renaming(text, "--column") for text in columns)
    rows = Spool(iter_rows(spec, registry))
    return Source(rows, registry, load_prompt(asked, registry))


def open_with(source: str, flags: Mapping[str, Any], *more: str) -> Source:
    """`open_source` with a command's own flags."""
    names = ("part", "data", "columns", "sets", "limit", "kit", *more)
    return open_source(source, **{name: flags[name] for name in names})


def apart(out: Path, *sources: str | None) -> None:
    """Refuse to write over what is read, or where no file can be, before anything is
    done or paid for.
    """
    if not out.name or (exists(str(out)) and not out.is_file()):
        raise InputError(f"{out} is no file; name a file to write")
    for source in filter(None, sources):
        if exists(source) and exists(str(out)) and out.samefile(source):
            raise InputError(
                f"{out} is read by this command and would be overwritten; name another"
                " file"
            )


def is_file(source: str) -> bool:
    """Whether SOURCE is a path and not a dataset's name."""
    return (
        Path(source).suffix in ROW_FILES
        or "/" in source
        or (exists(source) and Path(source).is_file())
    )


def _place(source: str, number: int) -> str:
    """Where a row of SOURCE stands: file and line, as far as they are known."""
    from alignkit.data.files import file_rows

    if not is_file(source) or not Path(source).is_file():
        return source
    rows = itertools.islice(file_rows(Path(source)), max(number - 1, 0), number)
    return next((each.place for each in rows), source)


def exists(source: str) -> bool:
    """Whether there is such a path; one that is too long or forbidden is none."""
    try:
        return Path(source).exists()
    except OSError:
        return False


def _of_recipe(
    source: str,
    part: str | None,
    sets: Sequence[str],
    limit: int | None,
    kit: Sequence[str],
    prompt: Any,
) -> Source:
    from alignkit.data import iter_rows, load_prompt
    from alignkit.data.spool import Spool

    recipe, registry = load_recipe(source, sets=sets, kit=kit)
    if recipe.stages:
        raise InputError(
            f"{source} is a pipeline; name the recipe of one of its stages:"
            f" {', '.join(recipe.stages)}"
        )
    config = recipe.stage
    spec = config.data.train.stated | {
        name: value
        for name, value in (("split", part), ("limit", limit))
        if value is not None
    }
    rows = Spool(iter_rows(spec, registry, seed=config.seed))
    asked = prompt if prompt is not None else config.data.template
    return Source(rows, registry, load_prompt(asked, registry), config)


def tokenizer_for(source: Source, path: str | None) -> Any:
    """The tokenizer of `--tokenizer`, or of the recipe's model.

    Raises:
        InputError: when neither is there.
    """
    from alignkit import models
    from alignkit.machine import hub

    if path is None:
        model = source.config.model if source.config is not None else None
        if model is not None and model.build is not None:
            return models.build_tokenizer(model.build.tokenizer, model.build.max_length)
        if model is None or model.path is None or model.path.startswith("stage:"):
            raise InputError(
                "lengths are counted in tokens: say whose, with --tokenizer PATH (a"
                " folder or Hub id)"
            )
        hub.require_model(model.path, model.revision)
        return models.load_tokenizer(model.path, model.revision)
    hub.require_model(path)
    return models.load_tokenizer(path)
