"""`NAME[:OPTION=VALUE,…]` and `KEY=VALUE` on the command line, for every command.

A VALUE is what a recipe could state behind `OPTION:`, by the recipe's own rules
(`1e-5` is a number, `no` and `1_000` are text). Commas within brackets and quotes
belong to the value, and so does every `=` behind the first.
"""

from __future__ import annotations

import re
from typing import Any

from alignkit.errors import RecipeError
from alignkit.recipe import tree, yaml

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""", re.S)


def named(text: str, flag: str) -> tuple[str, dict[str, Any]]:
    """NAME and the options of `NAME[:OPTION=VALUE,…]`; `flag` says who is asked.

    Raises:
        RecipeError: another form, a value that is no YAML, or an option stated twice.
    """
    name, colon, rest = text.partition(":")
    if not name.strip() or (colon and not rest.strip()):
        raise RecipeError(f"{flag} {text}: expected NAME[:OPTION=VALUE,…]")
    options: dict[str, Any] = {}
    for part in split(rest, f"{flag} {text}") if rest else []:
        option, word = halves(part, f"{flag} {text}", "NAME[:OPTION=VALUE,…]")
        if option in options:
            raise RecipeError(f"{flag} {text}: the option '{option}' stands twice")
        options[option] = _value(word, f"{flag} {text}", option)
    return name.strip(), options


def assignment(text: str, flag: str, expected: str = "KEY=VALUE") -> tuple[str, Any]:
    """KEY and value of one `KEY=VALUE`.

    Raises:
        RecipeError: another form, or a value that is no YAML.
    """
    key, word = halves(text, f"{flag} {text}", expected)
    return key, _value(word, f"{flag} {text}", key)


def renaming(text: str, flag: str) -> tuple[str, str]:
    """Both names of `NAME=THEIRS`, each as it is typed."""
    return halves(text, f"{flag} {text}", "NAME=THEIRS")


def split(text: str, where: str) -> list[str]:
    """The parts between the commas that stand outside brackets and quotes.

    Raises:
        RecipeError: a bracket that is never closed hides a comma.
    """
    parts, start, place = [], 0, 0
    depth, opened, hidden = 0, "", False
    fresh = True  # a quote in this place opens a quoted text
    while place < len(text):
        character = text[place]
        quoted = _QUOTED.match(text, place) if fresh else None
        if quoted is not None:
            place, fresh = quoted.end(), False
            continue
        if character in "[{":
            opened = opened if depth else character
            depth += 1
        elif character in "]}":
            depth = max(0, depth - 1)
            hidden = hidden and depth > 0
        elif character == "," and depth:
            hidden = True
        elif character == ",":
            parts.append(text[start:place])
            start = place + 1
        fresh = character in "[{,:=" or (fresh and character.isspace())
        place += 1
    if hidden:
        raise RecipeError(
            f"{where}: '{opened}' is not closed; put text that holds a bracket in"
            " quotes"
        )
    return [*parts, text[start:]]


def halves(text: str, where: str, expected: str) -> tuple[str, str]:
    """What stands before and behind the first `=`, neither of them empty.

    Raises:
        RecipeError: another form; `where` begins what it says.
    """
    name, equals, word = (part.strip() for part in text.partition("="))
    if not equals or not all(name.split(".")):
        raise RecipeError(f"{where}: expected {expected}")
    if not word:
        raise RecipeError(
            f"{where}: no value given; {name}='\"\"' is the empty text, {name}=null"
            " is nothing"
        )
    return name, word


def _value(word: str, where: str, name: str) -> Any:
    origin, problems = tree.Origin(word, kind="set"), []  # type: ignore[var-annotated]
    try:
        node = yaml.parse(word, origin, problems)
    except RecipeError as error:
        problems += error.problems
    if problems:
        faults = (problem.removeprefix(f"{origin}: ") for problem in problems)
        raise RecipeError(*(f"{where}: {name}: {fault}" for fault in faults))
    if any(one.value is tree.DELETE for one in (node, *dict(tree.walk(node)).values())):
        raise RecipeError(
            f"{where}: {name}: ~ deletes what is inherited, and nothing is; leave the"
            " option out, or write null"
        )
    return tree.plain(node)
