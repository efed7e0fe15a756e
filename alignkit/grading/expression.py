"""Plain math text as a tree: a parser of our own, because sympy's evaluates its input
as Python.

The grammar is what the published grader accepts after normalisation, with sympy's
implicit multiplication: numbers, one-letter symbols (`xy` is x*y), `pi`, `sqrt(…)`,
`ln(…)`, `csc(…)`, factorials, `+ - * / ^ **`, parentheses. Nothing is evaluated here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignkit.grading.latex_text import words

MAX_DEPTH = 60
# a chain of operations is as deep as it is long, and trees are walked by recursion
MAX_TOKENS = 400

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<decimal>(?:[0-9](?:_?[0-9])*)?\.[0-9](?:_?[0-9])*(?:e[-+]?[0-9]{1,9})?
               |[0-9](?:_?[0-9])*\.(?:e[-+]?[0-9]{1,9})?
               |[0-9](?:_?[0-9])*e[-+]?[0-9]{1,9})
    |(?P<integer>0(?:_?0)*|[1-9](?:_?[0-9])*)
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>\*\*|!!|[-+*/^!()])
    )""",
    re.VERBOSE,
)
_FUNCTIONS = frozenset(("sqrt", "ln", "csc"))
_WHOLE_NAMES = frozenset(("pi", "xi", "nu", "mu"))  # letters by name, not products
# What sympy or Python give these names is no number; the published grader fails on
# them.
_RESERVED = words(
    "all eye ff fft frac fu gff hn1 hn2 id im jn li nan ntt oo re rf yn zoo as if in"
    " is or"
)


class Unparsable(ValueError):
    """The text is no expression of the grammar."""


@dataclass(frozen=True, slots=True)
class Node:
    """`kind`: integer, decimal, symbol, pi, or an operation: + - * / ^ neg ! !! sqrt ln
    csc.
    """

    kind: str
    text: str = ""
    args: tuple[Node, ...] = ()


def parse(text: str) -> Node:
    """The tree of a text.

    Raises:
        Unparsable: the text is not in the grammar, or longer or deeper than the bounds.
    """
    parser = _Parser(_tokens(text))
    tree = parser.sum(0)
    if parser.at < len(parser.tokens):
        raise Unparsable(f"unexpected {parser.tokens[parser.at][1]!r}")
    return tree


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unparsable(f"unexpected {text[at : at + 10]!r}")
        if len(tokens) == MAX_TOKENS:
            raise Unparsable(f"over {MAX_TOKENS} tokens")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def sign(self, *signs: str) -> str | None:
        kind, text = self.peek()
        if kind == "sign" and text in signs:
            self.at += 1
            return text
        return None

    def sum(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Unparsable(f"over {MAX_DEPTH} nested parentheses")
        tree = self.product(depth)
        while sign := self.sign("+", "-"):
            tree = Node(sign, args=(tree, self.product(depth)))
        return tree

    def product(self, depth: int) -> Node:
        tree = self.signed(depth)
        while True:
            if sign := self.sign("*", "/"):
                tree = Node(sign, args=(tree, self.signed(depth)))
            elif (
                self.peek()[0] in ("integer", "decimal", "name")
                or self.peek()[1] == "("
            ):
                tree = Node("*", args=(tree, self.power(depth)))
            else:
                return tree

    def signed(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Unparsable(f"over {MAX_DEPTH} signs")
        if sign := self.sign("-", "+"):
            tree = self.signed(depth + 1)
            return Node("neg", args=(tree,)) if sign == "-" else tree
        return self.power(depth)

    def power(self, depth: int) -> Node:
        """An atom with its exponent; of a word of several letters the last letter takes
        the exponent.
        """
        *factors, base = self.atoms(depth)
        if self.sign("^", "**"):
            base = Node("^", args=(base, self.signed(depth + 1)))
        for factor in reversed(factors):
            base = Node("*", args=(factor, base))
        return base

    def atoms(self, depth: int) -> list[Node]:
        kind, text = self.peek()
        self.at += 1
        if kind in ("integer", "decimal"):
            atoms = [Node(kind, text.replace("_", ""))]
        elif kind == "name":
            atoms = self.name(text, depth)
        elif text == "(":
            atoms = [self.sum(depth + 1)]
            self.close()
        else:
            raise Unparsable(
                f"unexpected {text!r}" if text else "the text ends too early"
            )
        if sign := self.sign("!", "!!"):
            whole = atoms[-1]
            for factor in reversed(atoms[:-1]):
                whole = Node("*", args=(factor, whole))
            atoms = [Node(sign, args=(whole,))]
        return atoms

    def name(self, name: str, depth: int) -> list[Node]:
        if name in _FUNCTIONS:
            if not self.sign("("):
                raise Unparsable(f"{name} without parentheses")
            argument = self.sum(depth + 1)
            self.close()
            return [Node(name, args=(argument,))]
        if name in _RESERVED:
            raise Unparsable(f"{name!r} is no number")
        if name == "pi":
            return [Node("pi")]
        if name in _WHOLE_NAMES or "_" in name:
            return [Node("symbol", name)]
        if len(name) > MAX_TOKENS // 4:
            raise Unparsable("a word of too many letters")
        return [
            Node("integer" if part[0].isdecimal() else "symbol", part)
            for part in re.findall(r"[0-9]+|[^0-9]", name)
        ]

    def close(self) -> None:
        if not self.sign(")"):
            raise Unparsable("a parenthesis is not closed")
