"""`align data`: split, distill, filter, stats, show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from alignkit.cli.common import console, hold, json_option, print_json, typed_rewards
from alignkit.cli.distill import distill
from alignkit.cli.sources import (
    apart,
    is_file,
    open_source,
    open_with,
    prompt_options,
    source_options,
    tokenizer_for,
)
from alignkit.errors import InputError
from alignkit.terminal import say


@click.group()
def data() -> None:
    """Make and look at data. SOURCE is a file of rows, a dataset's name, or a recipe
    (its training data).
    """


data.add_command(distill)


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

    rows = open_with(source, flags).rows
    names = ("train", "validation", "removed")
    others = {}
    for text in against:
        name, _, part = (text, "", "") if is_file(text) else text.partition(":")
        for made in names:
            apart(Path(out) / f"{made}.jsonl", name)
        others[text] = open_source(name, part=part or None, kit=flags["kit"]).rows
    for made in names:
        apart(Path(out) / f"{made}.jsonl", source, flags["data"])
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
    screen = console()
    for name, count in counts.items():
        say(screen, f"{name}: {count} rows in {Path(out) / name}.jsonl")
    for row in parts.removed[:5]:
        say(screen, f"removed, for example: {row['removed']}")


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
    from alignkit.data.filter import Filter, counted, graded
    from alignkit.run import write_rows

    opened = open_with(source, flags)
    apart(Path(out), source, flags["data"])
    hold(Path(out))
    rows: Sequence[Mapping[str, Any]] = opened.rows
    least = flags["min_reward"]
    if reward is not None:
        typed_rewards(opened.registry, [reward])
        rows = graded(rows, opened.registry, reward)
        least = 1.0 if least is None else least
    shortest, longest, tokens = flags["min_tokens"], flags["max_tokens"], None
    if shortest is not None or longest is not None:
        named = flags["tokenizer"] or opened.config is not None
        tokenizer = tokenizer_for(opened, flags["tokenizer"]) if named else None
        tokens = counted(rows, tokenizer)
    reasons = flags["finish_reasons"] or None
    rules = Filter(least, reasons, shortest, longest, flags["duplicates"])
    write_rows(Path(out), rules.apply(rows, tokens))
    kept = len(rows) - rules.dropped.total()
    dropped = dict(rules.dropped.most_common())
    if as_json:
        print_json({"out": out, "rows": len(rows), "kept": kept, "dropped": dropped})
        return
    screen = console()
    say(screen, f"{kept} of {len(rows)} rows kept in {out}")
    for why, count in dropped.items():
        say(screen, f"dropped: {count} {why}")


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

    found = open_with(source, flags, "prompt", "prompt_file")
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
    from alignkit.cli.show import doubled_tags, of_row, print_segments, segments

    found = open_with(source, flags, "prompt", "prompt_file")
    if first > len(found.rows):
        raise InputError(f"--first {first}: there are {len(found.rows)} rows")
    chosen = found.rows[first - 1 : first - 1 + count]
    tokens = tokenizer_for(found, tokenizer)
    shown = []
    for number, row in enumerate(chosen, first):
        with of_row(number):
            shown.append(segments(found, row, tokens))
    if warning := doubled_tags(found, tokens):
        say(console(as_json=True), warning, style="yellow")
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
