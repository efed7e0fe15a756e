"""`align data`: split, distill, filter, stats, show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import console, hold, json_option, print_json
from alignkit.cli.sources import (
    Source,
    exists,
    is_file,
    open_source,
    prompt_options,
    source_options,
    tokenizer_for,
)
from alignkit.errors import InputError

if TYPE_CHECKING:
    from alignkit.endpoint.openai import OpenAIClient
    from alignkit.plugins import Registry

READING = ("part", "data", "columns", "sets", "limit", "kit")


@click.group()
def data() -> None:
    """Make and look at data. SOURCE is a file of rows, a dataset's name, or a recipe
    (its training data).
    """


def _open(source: str, flags: Mapping[str, Any], *more: str) -> Source:
    return open_source(source, **{name: flags[name] for name in (*READING, *more)})


def _apart(out: Path, *sources: str | None) -> None:
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


@data.command()
@source_options
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    help="For train.jsonl, validation.jsonl and removed.jsonl.",
)
@click.option(
    "--validation",
    type=float,
    default=200,
    show_default=True,
    help="How many questions; below 1: a share.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="SOURCE[:SPLIT]",
    help="Remove what also stands in this file or dataset (repeatable).",
)
@click.option("--question", metavar="COLUMN", help="The column that is compared.")
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def split(
    source: str,
    out: str,
    validation: float,
    against: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Divide SOURCE into training and validation; no question is in both, and none in a
    set it is held against.
    """
    from alignkit.data.split import split as divide
    from alignkit.run import write_rows

    rows = _open(source, flags).rows
    names = ("train", "validation", "removed")
    others = {}
    for text in against:
        name, _, part = (text, "", "") if is_file(text) else text.partition(":")
        for made in names:
            _apart(Path(out) / f"{made}.jsonl", name)
        others[text] = open_source(name, part=part or None, kit=flags["kit"]).rows
    for made in names:
        _apart(Path(out) / f"{made}.jsonl", source, flags["data"])
        hold(Path(out) / f"{made}.jsonl")
    parts = divide(
        rows,
        validation=validation,
        against=others,
        column=flags["question"],
        seed=flags["seed"],
    )
    counts = {}
    for name in names:
        counts[name] = len(getattr(parts, name))
        write_rows(Path(out) / f"{name}.jsonl", getattr(parts, name))
    if as_json:
        print_json({"out": out, **counts})
        return
    for name, count in counts.items():
        click.echo(f"{name}: {count} rows in {Path(out) / name}.jsonl")
    for row in parts.removed[:5]:
        click.echo(f"removed, for example: {row['removed']}")


@data.command()
@source_options
@prompt_options
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="A JSONL file; what was asked before is reused.",
)
@click.option(
    "--teacher",
    metavar="NAME[:MODEL]",
    help=(
        "One of the judges' endpoints (align plugins list).  [default: the first whose"
        " key is set]"
    ),
)
@click.option("--base-url", metavar="URL", help="Another server for the teacher.")
@click.option(
    "--price", type=float, metavar="USD", help="Dollars per million tokens, in and out."
)
@click.option(
    "--max-cost", type=float, metavar="USD", help="Stop before this call exceeds it."
)
@click.option(
    "--api",
    type=click.Choice(["auto", "chat", "completions"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Answers per row.",
)
@click.option("--temperature", type=click.FloatRange(0), default=0.6, show_default=True)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=8192, show_default=True
)
@click.option("--seed", type=int, help="Of the first answer; the next ones count on.")
@click.option("--concurrency", type=click.IntRange(1), default=16, show_default=True)
@click.option("--requests-per-minute", type=float, metavar="N")
@click.option(
    "--timeout",
    type=float,
    default=600,
    show_default=True,
    help="Seconds for one answer.",
)
@click.option(
    "--write-batch",
    metavar="FILE",
    help="Write the provider's batch file instead of asking.",
)
@click.option(
    "--read-batch",
    metavar="FILE",
    help="Take the answers from the provider's result file.",
)
@json_option
def distill(
    source: str, out: str, write_batch: str | None, read_batch: str | None, **flags: Any
) -> int:
    """Ask a teacher to answer the rows of SOURCE; only finished answers are kept."""
    from alignkit.cli.eval import progress
    from alignkit.data.distill import Distillation
    from alignkit.engines.base import Sampling

    if write_batch and read_batch:
        raise InputError("--write-batch and --read-batch exclude each other")
    if (
        not flags["prompt"]
        and not flags["prompt_file"]
        and not source.endswith((".yaml", ".yml"))
    ):
        flags["prompt"] = "chat"
    found = _open(source, flags, "prompt", "prompt_file")
    _apart(Path(out), source, flags["data"], read_batch)
    hold(Path(out))
    if write_batch:
        _apart(Path(write_batch), source, flags["data"])
    drawn = ("temperature", "top_p", "max_new_tokens", "seed")
    teacher = _teacher(found.registry, flags, offline=bool(write_batch or read_batch))
    sampling = Sampling(**{name: flags[name] for name in drawn})
    work = Distillation(
        found.rows, found.prompt, teacher, sampling, flags["samples"], Path(out)
    )
    if write_batch:
        count = work.write_requests(Path(write_batch))
        click.echo(
            f"{count} requests in {write_batch}; give the results to the same command"
            " with --read-batch"
        )
        return 0
    taken = None
    if read_batch:
        taken = work.read_results(Path(read_batch))
        made = work.write()
    else:
        if not flags["as_json"]:
            click.echo(f"to ask: {work.estimate()}; teacher {teacher.model}", err=True)
        before = len(work.asks) - len(work.todo())
        with progress(console(flags["as_json"]), "distill") as report:
            made = work.run(lambda done: report("asked", done, len(work.asks)))
        made["reused"] = before
    if flags["as_json"]:
        print_json(made | ({"batch": taken} if taken else {}))
        return 0
    if taken:
        click.echo(
            "batch: " + ", ".join(f"{count} {name}" for name, count in taken.items())
        )
    cost = "price unknown" if made["dollars"] is None else f"${made['dollars']:.4f}"
    tokens = f"{made['input_tokens']} tokens in, {made['output_tokens']} out"
    click.echo(
        f"{made['finished']} of {made['asked']} answers finished and kept in {out}"
    )
    click.echo(
        f"{made['unfinished']} cut or empty, {made['left']} not answered; this call:"
        f" {tokens}, {cost}"
    )
    if made["repeated"]:
        click.echo(
            f"{made['repeated']} of the rows' answers repeat a prompt: asked and kept"
            " once, with its first row"
        )
    return 0


def _teacher(
    registry: Registry, flags: Mapping[str, Any], offline: bool
) -> OpenAIClient:
    from alignkit.endpoint.costs import Budget
    from alignkit.endpoint.judges import default_judge, resolve
    from alignkit.endpoint.openai import OpenAIClient

    name = flags["teacher"] or default_judge(registry)
    judge = resolve(registry, name, flags["base_url"], flags["price"])
    if judge.create:
        raise InputError(
            f"teacher '{judge.name}' is no endpoint; name one, or serve the model with"
            " vLLM: vllm:MODEL"
        )
    if not judge.model:
        raise InputError(
            f"teacher '{judge.name}' needs its model's name: --teacher"
            f" {judge.name}:MODEL"
        )
    return OpenAIClient(
        judge.model,
        judge.base_url,
        judge.key,
        api=flags["api"],
        server="other" if offline else "auto",
        reasoning=True,
        budget=Budget(flags["max_cost"], judge.price),
        read_choice=judge.read_choice,
        concurrency=flags["concurrency"],
        requests_per_minute=flags["requests_per_minute"],
        timeout=flags["timeout"],
    )


@data.command("filter")
@source_options
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="A JSONL file of the rows that are kept.",
)
@click.option(
    "--reward",
    metavar="NAME[:OPTION=VALUE,…]",
    help="Grade `response` against `truth` first; adds reward and status.",
)
@click.option(
    "--min-reward", type=float, help="At least this reward (with --reward: 1)."
)
@click.option(
    "--finish-reason",
    "finish_reasons",
    multiple=True,
    metavar="NAME",
    help="Only these (repeatable).",
)
@click.option("--min-tokens", type=click.IntRange(0), help="Of the response.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of the response.")
@click.option(
    "--tokenizer",
    metavar="PATH",
    help="Counts the tokens; without it, the column `tokens` does.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["keep", "question", "response", "both"]),
    default="keep",
    show_default=True,
    help="Drop rows that repeat this.",
)
@json_option
def filter_(
    source: str, out: str, reward: str | None, as_json: bool, **flags: Any
) -> None:
    """Keep the rows of SOURCE that meet all rules; says how many went, and why."""
    from alignkit.data import require_columns
    from alignkit.data.filter import Filter
    from alignkit.run import write_rows

    found = _open(source, flags)
    _apart(Path(out), source, flags["data"])
    hold(Path(out))
    rows = _graded(found, reward, flags["kit"]) if reward else found.rows
    tokens = None
    if flags["min_tokens"] is not None or flags["max_tokens"] is not None:
        if flags["tokenizer"] or found.config is not None:
            tokenizer = tokenizer_for(found, flags["tokenizer"])
            require_columns(rows, ["response"], "a filter by length")
            _texts(rows)
            tokens = [
                len(
                    tokenizer(str(row["response"]), add_special_tokens=False)[
                        "input_ids"
                    ]
                )
                for row in rows
            ]
        else:
            require_columns(rows, ["tokens"], "a filter by length without --tokenizer")
            tokens = [row["tokens"] for row in rows]
            if wrong := [
                n
                for n, count in enumerate(tokens, 1)
                if type(count) is not int and not str(count).isdecimal()
            ]:
                raise InputError(
                    f"row {wrong[0]}: `tokens` is {str(tokens[wrong[0] - 1])[:40]!r},"
                    " expected a number"
                )
            tokens = list(map(int, tokens))
    least = 1.0 if reward and flags["min_reward"] is None else flags["min_reward"]
    reasons = flags["finish_reasons"] or None
    rules = Filter(
        least, reasons, flags["min_tokens"], flags["max_tokens"], flags["duplicates"]
    )
    kept = rules.apply(rows, tokens)
    write_rows(Path(out), kept)
    if as_json:
        print_json(
            {
                "out": out,
                "rows": len(rows),
                "kept": len(kept),
                "dropped": dict(rules.dropped),
            }
        )
        return
    click.echo(f"{len(kept)} of {len(rows)} rows kept in {out}")
    for why, count in rules.dropped.most_common():
        click.echo(f"dropped: {count} {why}")


def _texts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a `response` that is no text: messages, graded or counted as Python prints
    them, mean nothing.
    """
    for number, row in enumerate(rows, 1):
        if isinstance(row["response"], list | dict):
            raise InputError(
                f"row {number}: `response` is a {type(row['response']).__name__},"
                " expected a text; --column response=response.0.content, for instance,"
                " reads one out of messages"
            )


def _graded(found: Source, spec: str, kit: Sequence[str]) -> list[dict[str, Any]]:
    from alignkit.data import require_columns, require_truth
    from alignkit.grading import Grader, bind_plugin
    from alignkit.plugins import check_options
    from alignkit.recipe.yaml import scalar

    name, _, text = spec.partition(":")
    plugin = found.registry.get("reward", name)
    options = {
        key: scalar(value)
        for key, _, value in (pair.partition("=") for pair in text.split(",") if pair)
    }
    if problems := check_options(plugin, options):
        raise InputError(*(problem for _, problem in problems))
    require_columns(found.rows, ["response"], f"reward '{name}'")
    _texts(found.rows)
    require_truth(plugin, found.rows)
    responses, truths, prompts = (
        [row.get(c) for row in found.rows] for c in ("response", "truth", "prompt")
    )
    with Grader() as grader:
        graded = grader.score(
            bind_plugin(plugin, options),
            [str(r) for r in responses],
            truths,
            prompts,
            found.rows,
        )
    return [
        {**row, "reward": g.score.reward, "status": g.score.status}
        for row, g in zip(found.rows, graded, strict=True)
    ]


@data.command()
@source_options
@prompt_options
@click.option(
    "--tokenizer",
    metavar="PATH",
    help="A folder or Hub id (a recipe's model by default).",
)
@click.option(
    "--max-length",
    "limits",
    multiple=True,
    type=click.IntRange(1),
    help="Show what this maximum would drop and cut (repeatable).",
)
@json_option
def stats(
    source: str,
    tokenizer: str | None,
    limits: tuple[int, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Lengths of SOURCE in tokens: percentiles, a histogram, what a maximum length
    would drop and cut.
    """
    from alignkit.cli.show import pair_lengths, print_stats
    from alignkit.data.lengths import measure

    found = _open(source, flags, "prompt", "prompt_file")
    prompts, responses = pair_lengths(found, tokenizer_for(found, tokenizer))
    stated = found.config.train.get("max_length") if found.config is not None else None
    result = measure(
        prompts, responses, limits or ([stated] if stated else [512, 1024, 2048, 4096])
    )
    if as_json:
        result["lengths"] = {
            name: {
                field: getattr(part, field)
                for field in ("count", "mean", "shortest", "longest", "percentiles")
            }
            for name, part in result["lengths"].items()
        }
        print_json(result)
    else:
        print_stats(result, console())


@data.command()
@source_options
@prompt_options
@click.option(
    "--tokenizer",
    metavar="PATH",
    help="A folder or Hub id (a recipe's model by default).",
)
@click.option("--rows", "count", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--first",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of the first row shown.",
)
@json_option
def show(
    source: str,
    tokenizer: str | None,
    count: int,
    first: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Rows of SOURCE as the model will see them: every token, and which of them are
    trained on.
    """
    from alignkit.cli.show import print_segments, segments

    found = _open(source, flags, "prompt", "prompt_file")
    if first > len(found.rows):
        raise InputError(f"--first {first}: there are {len(found.rows)} rows")
    chosen = found.rows[first - 1 : first - 1 + count]
    tokens = tokenizer_for(found, tokenizer)
    shown = [segments(found, row, tokens) for row in chosen]
    if as_json:
        print_json(
            [
                {"row": number, "segments": parts}
                for number, parts in enumerate(shown, first)
            ]
        )
        return
    for number, parts in enumerate(shown, first):
        print_segments(number, len(found.rows), parts, tokens, console())
