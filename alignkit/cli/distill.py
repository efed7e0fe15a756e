"""`align data distill`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    allow_typed,
    console,
    hold,
    json_option,
    print_json,
    progress,
)
from alignkit.cli.sources import apart, open_with, prompt_options, source_options
from alignkit.errors import InputError
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from alignkit.endpoint.openai import OpenAIClient
    from alignkit.plugins import Registry


@click.command()
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
    from alignkit.data import load_prompt
    from alignkit.data.distill import Distillation
    from alignkit.sampling import Sampling

    if write_batch and read_batch:
        raise InputError("--write-batch and --read-batch exclude each other")
    found = open_with(source, flags, "prompt", "prompt_file")
    named = flags["prompt"] or flags["prompt_file"] or found.config
    # a conversation is asked as it is
    if not named and not all(isinstance(row.get("prompt"), list) for row in found.rows):
        found.prompt = load_prompt("chat", found.registry)
    apart(Path(out), source, flags["data"], read_batch)
    hold(Path(out))
    if write_batch:
        apart(Path(write_batch), source, flags["data"])
    drawn = ("temperature", "top_p", "max_new_tokens", "seed")
    teacher = _teacher(found.registry, flags, offline=bool(write_batch or read_batch))
    sampling = Sampling(**{name: flags[name] for name in drawn})
    work = Distillation(
        found.rows, found.prompt, teacher, sampling, flags["samples"], Path(out)
    )
    if write_batch:
        count = work.write_requests(Path(write_batch))
        echo(
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
            echo(f"to ask: {work.estimate()}; teacher {teacher.model}", err=True)
        before = len(work.asks) - len(work.todo())
        with progress("distill") as report:
            made = work.run(lambda done: report("asked", done, len(work.asks)))
        made["reused"] = before
    if flags["as_json"]:
        print_json(made | ({"batch": taken} if taken else {}))
    else:
        _show(made, taken, out)
    return 0


def _show(made: Mapping[str, Any], taken: Mapping[str, int] | None, out: str) -> None:
    from alignkit.data.form import CHANGES

    screen = console()
    if taken:
        counts = ", ".join(f"{count} {name}" for name, count in taken.items())
        say(screen, f"batch: {counts}")
    say(
        screen,
        f"{made['finished']} of {made['asked']} answers finished and kept in {out}",
    )
    for kind, count in made["normalised"].items():
        say(screen, f"normalised: {count} x {CHANGES[kind]} ({kind})")
    if made["not_in_form"]:
        say(
            screen,
            f"{made['not_in_form']} are not in the form that the prompt begins"
            " (</think> <answer>…</answer>) and were left as they are: align data filter"
            " --reward NAME drops what the recipe's reward does not take",
        )
    for notice in made["adapted"]:
        say(screen, f"the server did not take the request as it was: {notice}")
    if made["refused"]:
        said = "; ".join(f"{n} x {words:.200}" for words, n in made["refusals"].items())
        say(screen, f"{made['refused']} were refused for good, not asked again: {said}")
    cost = "price unknown" if made["dollars"] is None else f"${made['dollars']:.4f}"
    say(
        screen,
        f"{made['unfinished']} cut or empty, {made['left']} not answered; this call:"
        f" {made['input_tokens']} tokens in, {made['output_tokens']} out, {cost}",
    )
    if made["repeated"]:
        say(
            screen,
            f"{made['repeated']} of the rows' answers repeat a prompt: asked and kept"
            " once, with its first row",
        )


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
    allow_typed(flags["base_url"], judge.key)
    return OpenAIClient(
        judge.model,
        judge.base_url,
        judge.key,
        api=flags["api"],
        server="other" if offline else "auto",
        reasoning=True,
        settles=True,
        budget=Budget(flags["max_cost"], judge.price),
        read_choice=judge.read_choice,
        concurrency=flags["concurrency"],
        requests_per_minute=flags["requests_per_minute"],
        timeout=flags["timeout"],
    )
