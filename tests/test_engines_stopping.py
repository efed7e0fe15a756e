"""Stop strings against their definition: decode everything, and look everywhere."""

from __future__ import annotations

import random

import pytest

from alignkit.engines.stopping import StopStrings
from alignkit.sampling import stop_end

# Tokens are pieces of bytes: parts of characters, characters, several of them.
PIECES = [
    *(bytes([byte]) for byte in "é→😀".encode()),
    *("a", "b", "ab", "ba", "é", "→", "aé", "😀b", "bb→a", "abababab"),
]
TOKENS = [piece.encode() if isinstance(piece, str) else piece for piece in PIECES]
STOPS = [
    "a",
    "ab",
    "ba",
    "aba",
    "b→",
    "é→",
    "→",
    "😀",
    "é→😀",
    "bbbb",
    "abab→",
    "→a→a→a",
]


def decode(tokens: list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens).decode("utf-8", "replace")


def ends(text: str, stops: list[str], shield: int) -> list[int]:
    """Where every occurrence of a stop string ends that does not lie in the shield."""
    return [
        at + len(stop)
        for stop in stops
        for at in range(len(text))
        if text.startswith(stop, at) and at + len(stop) > shield
    ]


def defined_end(tokens: list[int], stops: list[str], shielded: int) -> int:
    """The first token after which the whole text holds a stop string that counts."""
    shield = len(decode(tokens[:shielded]))
    counts = range(shielded + 1, len(tokens) + 1)
    return next((n for n in counts if ends(decode(tokens[:n]), stops, shield)), 0)


def streams():
    source = random.Random(7)
    for case in range(3000):
        # few stop strings, so that many streams go on beyond the window
        stops = source.sample(STOPS[case % 7 :], source.choice([1, 1, 2, 4]))
        tokens = source.choices(range(len(TOKENS)), k=source.randint(1, 60))
        yield tokens, stops, source.choice([0, 0, 1, 3, 10, 30])


def test_the_first_stop_string_that_counts_ends_the_text():
    beyond = 0
    for tokens, stops, shielded in streams():
        stopping = StopStrings(stops, decode, shielded)
        expected = defined_end(tokens, stops, shielded)
        counts = range(1, len(tokens) + 1)
        seen = next(
            (n for n in counts if stopping.ended(window(stopping, tokens, n), n)), 0
        )
        assert seen == expected, (tokens, stops, shielded)
        whole = tokens[: expected or None]
        assert stopping.end(whole) == expected
        assert stopping.cut([*whole, 4, 4]) == whole or not expected
        places = ends(decode(whole), stops, len(decode(tokens[:shielded])))
        assert stopping.text(whole) == decode(whole)[: min(places, default=None)]
        beyond += expected > shielded + stopping.reach
    assert beyond > 100  # the window alone was asked that often


def window(stopping: StopStrings, tokens: list[int], count: int) -> list[int]:
    return tokens[max(0, count - stopping.window(count)) : count]


@pytest.mark.parametrize("shielded", [0, 10])
def test_a_long_response_costs_the_window_at_each_token(shielded):
    decoded = 0

    def counting(tokens: list[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return decode(tokens)

    stopping = StopStrings(["</answer>"], counting, shielded)
    tokens = [8] * 2000
    for count in range(1, 2001):
        assert not stopping.ended(window(stopping, tokens, count), count)
    early = (shielded + stopping.reach) * (2 * shielded + stopping.reach)
    assert decoded <= 2000 * stopping.reach + early


@pytest.mark.parametrize(
    ("text", "shield", "end"),
    [
        ("ab<2>cd<1>", 0, 5),  # the first in the text, not in the list
        ("ab<2>cd<1>", 4, 5),  # begun in the shield, ended behind it
        ("ab<2>cd<1>", 5, 10),
        ("nothing", 0, 0),
    ],
)
def test_a_text_ends_behind_its_first_stop_string(text, shield, end):
    assert stop_end(text, ["<1>", "<2>"], shield) == end


def test_of_two_stop_strings_the_one_that_ends_first_counts():
    assert stop_end("abcd", ["abcd", "bc"]) == 3
