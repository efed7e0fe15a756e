"""Rows as the model sees them, and their lengths, on a terminal or as plain lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignkit import data
from alignkit.data.rows import RowError
from alignkit.errors import InputError, listing
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.cli.sources import Source

BAR = 40  # characters of the longest bar
SHOWN = 100_000  # characters of a prompt or response that are tokenised and laid out


def pair_lengths(source: Source, tokenizer: Any) -> tuple[list[int], list[int] | None]:
    """Tokens of each row's prompt and response. Of a preference the longer response
    counts; problems have none.
    """
    from alignkit.models import text

    if all(_kind(source, row) == "problem" for row in source.rows):
        lengths = []
        for number, row in enumerate(source.rows, 1):
            with of_row(number):
                prompt = data.render(source.prompt, row)
                lengths.append(len(text.prompt_ids(tokenizer, prompt)))
        return lengths, None
    prompts, responses = [], []
    for number, row in enumerate(source.rows, 1):
        if not all(isinstance(answer["response"], str) for answer in _answers(row)):
            raise RowError(
                number,
                f"row {number}: expected a text in `response`, or in `chosen` and"
                " `rejected`; --column response=THEIRS reads another column",
            )
        with of_row(number):
            pairs = [
                text.pair_ids(tokenizer, *data.render_pair(source.prompt, r))
                for r in _answers(row)
            ]
        prompts.append(len(pairs[0][0]))
        responses.append(max(len(answer) for _, answer in pairs))
    return prompts, responses


@contextlib.contextmanager
def of_row(number: int) -> Iterator[None]:
    """What cannot be made of a row is said with its number."""
    try:
        yield
    except InputError as error:
        raise RowError(number, f"row {number}: {error}") from error


def segments(
    source: Source, row: Mapping[str, Any], tokenizer: Any
) -> list[dict[str, Any]]:
    """Runs of tokens of one row: `part`, `trained`, `ids`; for problems also the truth
    as a part without tokens.
    """
    from alignkit.data.encode import LONGEST_PROMPT
    from alignkit.models import text
    from alignkit.recipe.trl import setting

    config = source.config
    train = config.train if config is not None else {}
    if _kind(source, row) == "problem":
        ids, cut = _start(tokenizer, data.render(source.prompt, row))
        return [
            _segment("prompt", False, ids, cut),
            {"part": "truth", "trained": False, "ids": [], "text": row.get("truth")},
        ]
    limit = None if config is None else setting(config, "max_length")
    whole = train.get("completion_only_loss") is False
    longest = LONGEST_PROMPT * (limit or 0)
    found: list[dict[str, Any]] = []
    for answer in _answers(row):
        asked, said = data.render_pair(source.prompt, answer)
        _, tail = text.parted(tokenizer, asked, said)
        prompt, cut = _start(tokenizer, asked, longest)
        response = text.response_ids(tokenizer, tail[:SHOWN])
        if len(tail) > SHOWN:
            response.pop()  # the end token stands behind the rest
        if limit is not None and len(prompt) > longest:
            name = f"prompt (dropped: over 70 % of {limit} tokens)"
            return [_segment(name, False, prompt, cut)]
        room = len(response) if limit is None else max(0, limit - len(prompt))
        if not found:
            found.append(_segment("prompt", whole, prompt, cut))
        left = max(0, len(tail) - SHOWN)
        behind = 0 if room < len(response) else left
        found.append(_segment(answer["part"], True, response[:room], behind))
        if room < len(response):
            found.append(
                _segment(
                    f"{answer['part']} (cut at {limit} tokens)",
                    False,
                    response[room:],
                    left,
                )
            )
    return found


def _start(tokenizer: Any, prompt: Any, longest: float = 0) -> tuple[list[int], int]:
    """The tokens of a prompt's first characters, of so many that it is seen whether
    there are more than `longest`; and how many characters are left.
    """
    from alignkit.models import text

    whole = prompt if isinstance(prompt, str) else text.render_chat(tokenizer, prompt)
    most = SHOWN
    while True:
        if isinstance(prompt, str):
            ids = text.prompt_ids(tokenizer, whole[:most])
        else:
            ids = list(tokenizer(whole[:most], add_special_tokens=False)["input_ids"])
        if len(ids) > longest or most >= len(whole):
            return ids, max(0, len(whole) - most)
        most *= 4


def doubled_tags(source: Source, tokenizer: Any) -> str:
    """A warning of rows whose response begins a thought, or ends one or an answer, that
    has begun or ended before; empty where there is none.
    """
    from alignkit.data.form import doubled
    from alignkit.models import text

    rows, tags = [], set()
    for number, row in enumerate(source.rows, 1):
        found: set[str] = set()
        for answer in _answers(row) if _kind(source, row) == "answered" else ():
            # what cannot be shown is told where it is shown
            with contextlib.suppress(InputError):
                pair = data.render_pair(source.prompt, answer)
                found |= {*doubled(*text.parted(tokenizer, *pair))}
        tags |= found
        rows += [str(number)] * bool(found)
    if not rows:
        return ""
    return (
        f"warning: {len(rows)} of {len(source.rows)} rows have"
        f" {' and '.join(sorted(tags))} twice, counting what the prompt opens: rows"
        f" {listing(rows, 20)}. Training would teach that; align data distill writes"
        " answers in the form that their prompt begins"
    )


def _kind(source: Source, row: Mapping[str, Any]) -> str:
    if source.config is not None and source.config.method not in ("sft", "dpo"):
        return "problem"
    return "answered" if "response" in row or "chosen" in row else "problem"


def _answers(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "chosen" in row:
        return [
            {**row, "response": row.get(side), "part": side}
            for side in ("chosen", "rejected")
        ]
    return [{**row, "response": row.get("response"), "part": "response"}]


def _segment(
    part: str, trained: bool, ids: Sequence[int], left: int = 0
) -> dict[str, Any]:
    rest = {"characters_left_out": left} if left else {}
    return {"part": part, "trained": trained, "ids": list(ids), **rest}


def print_segments(
    number: int,
    total: int,
    parts: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    out: Console,
) -> None:
    """One row: trained tokens green, the others grey, with every second token
    underlined so that bounds show.
    """
    from rich.text import Text

    out.rule(f"row {number} of {total}")
    for part in parts:
        if not part["ids"]:
            say(out, f"{part['part']}: {part.get('text')!r}")
            continue
        state = "trained on" if part["trained"] else "not trained on"
        out.print(
            Text(f"{part['part']}: {len(part['ids'])} tokens, {state}", style="bold")
        )
        line = Text()
        for index, piece in enumerate(_pieces(part["ids"], tokenizer)):
            style = ("green" if part["trained"] else "bright_black") + (
                " underline" if index % 2 else ""
            )
            line.append(_visible(piece), style=style)
        out.print(line, soft_wrap=True)
        if left := part.get("characters_left_out"):
            say(out, f"… {left} more characters are not shown")


def _pieces(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text of each token; tokens that are bytes of one character are shown
    together.
    """
    pieces, pending = [], []
    for token in ids:
        pending.append(token)
        text = tokenizer.decode(pending)
        if not text.endswith("\ufffd") or len(pending) == 4:
            pieces.append(text)
            pending = []
    return [*pieces, tokenizer.decode(pending)] if pending else pieces


def _visible(text: str) -> str:
    """A token's text with a newline shown and kept; other control characters are shown
    only.
    """
    shown = "".join(
        c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text
    )
    return shown.replace("\n", "\u23ce\n")


def print_stats(result: Mapping[str, Any], out: Console) -> None:
    """Tables and a histogram."""
    from rich.table import Table

    table = Table(
        "tokens",
        "rows",
        "mean",
        "min",
        "p50",
        "p90",
        "p95",
        "p99",
        "max",
        box=None,
        pad_edge=False,
    )
    for name, part in result["lengths"].items():
        ranks = [str(part.percentiles[p]) for p in (50, 90, 95, 99)]
        table.add_row(
            name,
            str(part.count),
            f"{part.mean:.1f}",
            str(part.shortest),
            *ranks,
            str(part.longest),
        )
    out.print(table)
    most = max(count for _, _, count in result["histogram"])
    for low, high, count in result["histogram"]:
        echo(f"{low:>7} to {high:>7}  {'#' * round(BAR * count / most):{BAR}}  {count}")
    for limit, effect in result["limits"].items():
        echo(
            f"max_length {limit}: {effect['dropped']} rows dropped for a long prompt,"
            f" {effect['cut']} cut ({effect['tokens_lost']} tokens lost)"
        )
    echo(
        f"suggested max_length: {result['suggested_max_length']} (the 95th percentile)"
    )
