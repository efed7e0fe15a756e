r"""A formula in LaTeX or plain text as a tree. Nothing is evaluated here.

Numbers, letters (`xy` is x*y), Greek letters, `\frac`, `\sqrt[n]{}`, powers, factorials,
binomials, absolute values, floors, elementary functions, `\log_b`, degrees, mixed
numbers (`1\frac14` is 5/4), repeating decimals (`0.\overline{3}`).
"""

from __future__ import annotations

from alignkit.grading.answer.tree import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    Tree,
    Unreadable,
    number,
    tokens_of,
)

MAX_DEPTH = 60
# behind a whole number: where numerator and denominator stand, and what else does
_FRACTIONS = {
    (2, 5): ("\\frac", "{", "", "}", "{", "", "}"),
    (0, 2): ("", "/", ""),  # 1 1/2
}
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}


def formula(text: str) -> Tree:
    """The tree of a text in the spelling of `spelled`.

    Raises:
        Unreadable: the text is not in the grammar, or longer or deeper than the bounds.
    """
    reader = _Reader(tokens_of(text))
    tree = reader.sum(0)
    if reader.at < len(reader.tokens):
        raise Unreadable(f"unexpected {reader.tokens[reader.at][1]!r}")
    return tree


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "")

    def take(self, *texts: str) -> str | None:
        if self.peek()[1] in texts and self.peek()[0] != "end":
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise Unreadable(f"{text!r} is missing")

    def sum(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Unreadable(f"over {MAX_DEPTH} levels deep")
        tree = self.product(depth)
        while sign := self.take("+", "-"):
            tree = Tree(sign, args=(tree, self.product(depth)))
        return tree

    def product(self, depth: int) -> Tree:
        tree = self.signed(depth)
        while True:
            if sign := self.take("*", "\\cdot", "/"):
                kind = "/" if sign == "/" else "*"
                tree = Tree(kind, args=(tree, self.signed(depth)))
            elif self.begins_factor():
                tree = Tree("*", args=(tree, self.power(depth)))
            else:
                return tree

    def begins_factor(self) -> bool:
        kind, text = self.peek()
        if kind in ("number", "repeating"):
            # 1 2 is no product
            return self.tokens[self.at - 1][0] not in ("number", "repeating")
        if kind == "letter" or text in ("(", "{", "[", "\\{"):
            return True
        ending = ("\\cdot", "\\rfloor", "\\rceil", "\\}")
        return kind == "command" and text not in ending

    def signed(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Unreadable(f"over {MAX_DEPTH} signs")
        if sign := self.take("-", "+"):
            tree = self.signed(depth + 1)
            return Tree("neg", args=(tree,)) if sign == "-" else tree
        return self.power(depth)

    def power(self, depth: int) -> Tree:
        base = self.factorial(self.atom(depth))
        if self.take("^", "**"):
            base = Tree("^", args=(base, self.raised(depth)))
            base = self.factorial(base)
        if self.take("°"):
            base = Tree("*", args=(base, Tree("degree")))
        return base

    def factorial(self, tree: Tree) -> Tree:
        while sign := self.take("!", "!!"):
            tree = Tree(sign, args=(tree,))
        return tree

    def raised(self, depth: int) -> Tree:
        if self.take("{"):
            tree = self.sum(depth + 1)
            self.expect("}")
            return tree
        if sign := self.take("-", "+"):
            tree = self.raised(depth + 1)
            return Tree("neg", args=(tree,)) if sign == "-" else tree
        return self.atom(depth + 1)

    def atom(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Unreadable(f"over {MAX_DEPTH} levels deep")
        kind, text = self.peek()
        self.at += 1
        if kind in ("number", "repeating"):
            return self.mixed(text)
        if kind == "letter":
            return self.letter(text)
        if kind == "command":
            return self.command(text[1:], depth)
        if text in ("(", "{", "["):
            tree = self.sum(depth + 1)
            self.expect(_CLOSING[text])
            return tree
        if text == "|":
            tree = self.sum(depth + 1)
            self.expect("|")
            return Tree("abs", args=(tree,))
        raise Unreadable(f"unexpected {text!r}" if text else "the text ends too early")

    def mixed(self, text: str) -> Tree:
        r"""A number; with a fraction of whole numbers behind it, a mixed one."""
        whole = number(text)
        parts = [token for _, token in self.tokens[self.at : self.at + 7]]
        for places, signs in _FRACTIONS.items():
            upper, lower = places
            shape = [
                part for n, part in enumerate(parts[: len(signs)]) if n not in places
            ]
            if shape != [sign for sign in signs if sign]:
                continue
            if text.isdigit() and parts[upper].isdigit() and parts[lower].isdigit():
                self.at += len(signs)
                fraction = Tree("/", args=(number(parts[upper]), number(parts[lower])))
                return Tree("+", args=(whole, fraction))
        return whole

    def letter(self, name: str) -> Tree:
        if self.take("_"):
            return Tree("symbol", f"{name}_{self.subscript()}")
        primes = 0
        while self.take("'"):
            primes += 1
        if name in CONSTANTS and not primes:
            return Tree(CONSTANTS[name])
        return Tree("symbol", name + "'" * primes)

    def subscript(self) -> str:
        if not self.take("{"):
            self.at += 1
            return self.tokens[self.at - 1][1] if self.at <= len(self.tokens) else ""
        parts = []
        while not self.take("}"):
            if self.peek()[0] == "end":
                raise Unreadable("a subscript does not end")
            parts.append(self.peek()[1])
            self.at += 1
        return "".join(parts)

    def group(self, depth: int) -> Tree:
        self.expect("{")
        tree = self.sum(depth + 1)
        self.expect("}")
        return tree

    def command(self, name: str, depth: int) -> Tree:
        if name == "frac":
            return Tree("/", args=(self.group(depth), self.group(depth)))
        if name == "binom":
            return Tree("binom", args=(self.group(depth), self.group(depth)))
        if name == "sqrt":
            return self.root(depth)
        if name in FUNCTIONS:
            return self.function(name, depth)
        if name in ("lfloor", "lceil"):
            tree = self.sum(depth + 1)
            self.expect(f"\\r{name[1:]}")
            return Tree(name[1:], args=(tree,))
        if name in CONSTANTS:
            return Tree(CONSTANTS[name])
        if name in GREEK:
            return self.letter(f"\\{name}")
        if name == "text":
            return self.named(depth)
        raise Unreadable(f"unexpected \\{name}")

    def named(self, depth: int) -> Tree:
        r"""`\mathrm{e}`, `\operatorname{lcm}`: a letter; words are no formula."""
        self.expect("{")
        kind, text = self.peek()
        if self.peek(1)[1] != "}" or kind not in ("letter", "command"):
            raise Unreadable("words within a formula")
        self.at += 2
        return self.letter(text) if kind == "letter" else self.command(text[1:], depth)

    def root(self, depth: int) -> Tree:
        index = number("2")
        if self.take("["):
            index = self.sum(depth + 1)
            self.expect("]")
        if self.take("("):  # sqrt(2)
            tree = self.sum(depth + 1)
            self.expect(")")
        else:
            tree = self.group(depth)
        return Tree("root", args=(index, tree))

    def function(self, name: str, depth: int) -> Tree:
        base = exponent = None
        for _ in range(2):
            if self.take("_"):
                base = self.raised(depth)
            elif self.take("^"):
                exponent = self.raised(depth)
        if self.peek()[1] in ("(", "{", "["):
            argument = self.atom(depth)
        else:
            argument = self.argument(depth)
        if name in ("log", "lg"):
            tree = Tree("log", args=(base or number("10"), argument))
        else:
            tree = Tree(name, args=(argument,))
        if exponent is None:
            return tree
        if exponent == Tree("neg", args=(number("1"),)) and name in (
            "sin",
            "cos",
            "tan",
        ):
            return Tree(f"arc{name}", args=(argument,))
        return Tree("^", args=(tree, exponent))

    def argument(self, depth: int) -> Tree:
        r"""Of a function without parentheses: `\sin 2x \cos x` is sin(2x) cos(x)."""
        tree = self.signed(depth + 1)
        while self.begins_factor() and self.peek()[1][1:] not in FUNCTIONS:
            if self.peek()[1] in ("(", "["):
                break
            tree = Tree("*", args=(tree, self.power(depth + 1)))
        if self.peek()[1] == "/" and self.peek(1)[0] == "number":
            self.at += 1
            tree = Tree("/", args=(tree, self.power(depth + 1)))
        return tree
