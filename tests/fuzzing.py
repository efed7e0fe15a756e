"""Damaged input, drawn by a seed, and what the command line makes of it, in one process."""

from __future__ import annotations

import copy
import json
import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from alignkit import cli as command_line

LONG = 10.0  # CPU seconds that a refusal may take, far above what it does
FULL = (pytest.mark.slow, pytest.mark.torture)
BOUND = 900.0  # seconds after which the long form ends with what it has done
BIG, DEEP, WIDE = "@5,000 digits@", "@deep@", "@400 digits@"
RAW = {
    f'"{BIG}"': "9" * 5000,
    f'"{DEEP}"': "[" * 20_000 + "]" * 20_000,
    f'"{WIDE}"': "7" * 400,
}
ODD = [
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "\x1b]0;t\x07",
        "\u202eabc",
        "\ud800",
        "a" * 5000,
        "[red]",
        "../..",
        "~",
    ),
    *([], {}, [1], ["x"], [[]], [{}], {"x": 1}, {"": None}, [None], {"a": {"b": []}}),
    *(2**31, 2**63, 10**20, BIG, DEEP, WIDE, "1e400", "nan", "on", "%s", "{x}", "=1+1"),
]
BYTES = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\t",
    b'"',
    b"{",
    b"[",
    b"}",
]
BYTES += [b"- ", b": ", b"#", b"&a ", b"*a ", b"!!python/name:os.system ", b"\\ud800"]
BYTES += [b"9" * 5000, b"[" * 5000, b"\xc3", b"NaN", b"null", b"<<: ", b"%", b"|", b"'"]


class Outcome(NamedTuple):
    code: int | str | None
    said: str
    seconds: float


def invoked(arguments: Iterable[object]) -> Outcome:
    """A command as `align` runs it: code, all that was printed, CPU time."""
    began = time.process_time()
    with CliRunner().isolation() as (out, err, _):
        trace = ""
        try:
            command_line.main([str(each) for each in arguments])
            code: int | str | None = 0
        except SystemExit as stop:
            code = stop.code
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            code = type(error).__name__
            trace = "".join(traceback.format_exception(error)[-9:])
        said = (out.getvalue() + err.getvalue()).decode("utf-8", "replace") + trace
    return Outcome(code, said, time.process_time() - began)


def fault(outcome: Outcome, names: Iterable[str], also: Iterable[int] = ()) -> str:
    """What is wrong with how a command ended; `names` are files of which one must be
    named, `also` codes that are an answer of this command.
    """
    code, said, seconds = outcome
    if code not in (0, 2, 3, *also):
        return f"left with {code}: {said[-1500:]}"
    if "Traceback (most recent" in said:
        return f"a traceback: {said[-1500:]}"
    if seconds > LONG and code in (2, 3):
        return f"took {seconds:.1f} s: {said[-300:]}"
    if code in (2, 3) and not any(name in said for name in names):
        return f"names no file: {said[-600:]}"
    if len(said) > 60_000 and code in (2, 3):
        return f"says {len(said)} characters: {said[:300]}"
    return ""


def written(value: Any) -> str:
    """JSON with the numbers and depths that Python's own writer refuses."""
    text = json.dumps(value, indent=1)
    for mark, raw in RAW.items():
        text = text.replace(mark, raw)
    return text


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) in a nested value."""
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    found = []
    for key, part in pairs:
        found += [(value, key), *places(part)]
    return found


def changed(value: Any, dice: random.Random) -> Any:
    """A nested value with one to three of its parts replaced, removed, renamed."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        if not (found := places(value)):
            return dice.choice(ODD)
        holder, key = dice.choice(found)
        how = dice.random()
        if how < 0.7:
            holder[key] = copy.deepcopy(dice.choice(ODD))
        elif how < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[dice.choice((f"{key}x", "x", "", "\ud800"))] = holder.pop(key)
        else:
            holder.append(copy.deepcopy(holder[key]))
    return value


def torn(content: bytes, dice: random.Random) -> bytes:
    """Bytes cut, flipped, doubled, or with others put between."""
    how, at = dice.randrange(8), dice.randrange(len(content) + 1)
    lines = content.splitlines(keepends=True) or [b""]
    line = dice.randrange(len(lines))
    match how:
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :]
        case 2:
            return content[:at] + dice.choice(BYTES) + content[at:]
        case 3:
            return b"".join([*lines[:line], lines[line], *lines[line:]])
        case 4:
            return b"".join(lines[:line] + lines[line + 1 :])
        case 5:
            return b"".join([*lines[:line], b" " + lines[line], *lines[line + 1 :]])
        case 6:
            numbers = [*re.finditer(rb"-?\d[\d.]*", content)]
            if not numbers:
                return b""
            one = dice.choice(numbers)
            odd = dice.choice((b"-1", b"0", b"1e999", b"nan", b"9" * 400, b"x", b"[]"))
            return content[: one.start()] + odd + content[one.end() :]
    return dice.choice((b"", b"null\n", b"[]\n", b"{}\n", b'{"a":' * 5000, bytes(256)))


def damaged(path: Path, dice: random.Random) -> str:
    """Damage a file of a folder; says how."""
    content = path.read_bytes()
    how = dice.randrange(10)
    if how == 0:
        path.unlink()
        path.mkdir()
        return "a folder"
    if how == 1:
        path.unlink()
        return "gone"
    if how < 7 and path.suffix in (".json", ".jsonl", ".yaml"):
        try:
            if path.suffix == ".jsonl":
                rows = [json.loads(line) for line in content.splitlines()]
                at = dice.randrange(len(rows))
                rows[at] = changed(rows[at], dice)
                text = "".join(written(row).replace("\n", "") + "\n" for row in rows)
            else:
                text = written(changed(json.loads(content), dice))
            path.write_text(text)
            return "changed"
        except ValueError:
            pass
    path.write_bytes(torn(content, dice))
    return "torn"


class Tally:
    """What became of damaged inputs: iterates over their numbers until the bound, and
    then asserts that none was a fault.
    """

    def __init__(self, what: str, count: int) -> None:
        self.what = what
        self.count = count
        self.dice = random.Random(count)
        self.full = count > 100  # else each input meets one command
        self._codes: Counter[int] = Counter()
        self._slowest = 0.0
        self._faults: list[str] = []

    def __iter__(self) -> Iterator[int]:
        until = time.monotonic() + BOUND
        tried = 0
        while tried < self.count and time.monotonic() < until:
            yield tried
            tried += 1
        slowest = f"the slowest refusal {self._slowest:.2f} CPU s"
        print(f"{tried} {self.what}: {dict(self._codes)}, {slowest}")
        faults = self._faults
        assert not faults, f"{len(faults)} faults\n" + "\n\n".join(faults[:60])

    def note(
        self, outcome: Outcome, fault: str | None, where: str, held: bytes
    ) -> None:
        """Count an outcome; `fault` says what is wrong with it."""
        self._codes[outcome.code] += 1
        if outcome.code in (2, 3):
            self._slowest = max(self._slowest, outcome.seconds)
        if fault:
            self._faults.append(f"{where}: {fault}\n{held!r}")
            print(self._faults[-1])
