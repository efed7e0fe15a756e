"""A formula as a tree, and its text as tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignkit.grading.latex_text import words

MAX_TOKENS = 600
FUNCTIONS = words("""
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth exp ln
    log lg
    """)
CONSTANTS = {"pi": "pi", "infty": "infinity", "e": "e", "i": "i"}
GREEK = words("""
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota
    kappa lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma
    Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar
    """)
# named without a backslash
_WORDS = frozenset({*FUNCTIONS, "sqrt", "pi", "infinity"})
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4}(?![\d.]))?)
    |(?P<command>\\[a-zA-Z]+|\\[{}%|])
    |(?P<word>[a-zA-Z]+)
    |(?P<sign>\*\*|!!|[-+*/^!(){}\[\]|_'])
    )""",
    re.VERBOSE,
)
_REPEATING = re.compile(r"\s*(?:\\overline|\\dot)\s*(?:\{(\d{1,50})\}|(\d))")
_DEGREE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)(?![a-zA-Z])")


class Unreadable(ValueError):
    """The text is no formula of the grammar."""


@dataclass(frozen=True, slots=True)
class Tree:
    """`kind`: number, symbol, pi, e, i, infinity, degree, or an operation: + - * / ^ neg
    ! !! abs floor ceil binom root (index, radicand) log (base, argument), or a function's
    name.
    """

    kind: str
    text: str = ""
    args: tuple[Tree, ...] = ()

    def symbols(self) -> frozenset[str]:
        """Names of the symbols in it."""
        own = frozenset([self.text] if self.kind == "symbol" else [])
        return own.union(*(arg.symbols() for arg in self.args))


def number(text: str) -> Tree:
    return Tree("number", text)


def tokens_of(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        if degree := _DEGREE.match(text, at):
            tokens.append(("degree", "°"))
            at = degree.end()
            continue
        if repeating := _REPEATING.match(text, at):
            if not tokens or tokens[-1][0] != "number" or "." not in tokens[-1][1]:
                raise Unreadable("a bar over digits of no decimal")
            block = repeating[1] or repeating[2]
            tokens[-1] = ("repeating", f"{tokens[-1][1]}|{block}")
            at = repeating.end()
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(f"unexpected {text[at : at + 10]!r}")
        if len(tokens) == MAX_TOKENS:
            raise Unreadable(f"over {MAX_TOKENS} tokens")
        at = match.end()
        kind, token = str(match.lastgroup), match[str(match.lastgroup)]
        tokens += _letters(token) if kind == "word" else [(kind, token)]
    return tokens


def _letters(word: str) -> list[tuple[str, str]]:
    r"""`sin` and `pi` are what they name; other letters stand side by side."""
    if word.lower() in _WORDS:
        name = "infty" if word.lower() == "infinity" else word.lower()
        return [("command", f"\\{name}")]
    for name in ("sqrt", "pi"):
        if word.endswith(name):
            return [*_letters(word[: -len(name)]), ("command", f"\\{name}")]
    return [("letter", letter) for letter in word]
