r"""LaTeX math as plain text: `\frac{a}{b}` becomes `a/b`, `\sqrt{x}` becomes `sqrt(x)`,
`\pi` becomes `pi`.

The rendering is the one that the published grader compares (it uses a general
LaTeX-to-text converter): fractions get no parentheses, unknown commands vanish and
leave their arguments.
"""

from __future__ import annotations

import re
import unicodedata

# nested groups; deeper text is no answer, and recursion stays far from the
# interpreter's limit
MAX_DEPTH = 60


def words(text: str) -> frozenset[str]:
    """The words of a table."""
    return frozenset(text.split())


# A command, an escaped character, a ligature, a brace or bracket, or plain text up to
# the next of these.
_TOKEN = re.compile(
    r"\\[A-Za-z]+[ \t\r\n]*|\\.|\\$|---?|``|''|[{}\[\]&~]|[^\\{}\[\]&~`'-]+|.",
    re.DOTALL,
)
_SYMBOLS = {
    name: text
    for line in """
    alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ
    nu ν xi ξ pi pi varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω
    Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω ell ℓ hbar ħ partial ∂ nabla ∇
    infty inf cup U cap ∩ cdot * times * div ÷ pm ± mp ∓ ast ∗ star ⋆ circ ∘ bullet ∙ oplus ⊕ otimes ⊗ odot ⊙ setminus ∖
    le ≤ leq ≤ ge ≥ geq ≥ neq ≠ leqslant ⩽ geqslant ⩾ ll ≪ gg ≫ approx ≈ equiv ≡ sim ∼ simeq ≃ cong ≅ propto ∝ perp ⊥
    parallel ∥ mid | in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ supset ⊃ supseteq ⊇ emptyset ∅ varnothing ∅ forall ∀ exists ∃
    to → rightarrow → leftarrow ← leftrightarrow ↔ Rightarrow ⇒ Leftarrow ⇐ Leftrightarrow ⇔ mapsto ↦ wedge ∧ vee ∨
    dots … ldots … cdots ⋯ vdots ⋮ ddots ⋱ angle ∠ prime ' square □ mho ℧ therefore ∴ because ∵ AA Å
    lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ langle ⟨ rangle ⟩ lvert | rvert | vert | lVert ‖ rVert ‖
    lbrace { rbrace } backslash \\
    sum ∑ prod ∏ int ∫ textdegree ° sin sin cos cos tan tan sup sup inf inf log log ln ln exp exp max max
    min min
    arcsin arcsin arccos arccos arctan arctan sinh sinh cosh cosh tanh tanh lim lim
    """.splitlines()
    for name, text in zip(line.split()[::2], line.split()[1::2], strict=True)
}
_SPACES = {"quad": "  ", "qquad": "    "}
_ESCAPED = {
    " ": " ",
    ",": " ",
    ";": " ",
    ":": "  ",
    ">": " ",
    "\\": "\n",
    "[": "\n    ",
    "]": "\n",
}
_LIGATURES = {
    "--": "–",
    "---": "—",
    "``": "“",
    "''": "”",
    "~": "\N{NO-BREAK SPACE}",
    "&": "   ",
}
_ACCENTS = {
    "hat": "\u0302",
    "vec": "\u20d7",
    "bar": "\u0305",
    "dot": "\u0307",
    "ddot": "\u0308",
    "tilde": "\u0303",
    "'": "\u0301",
    "`": "\u0300",
    '"': "\u0308",
    "^": "\u0302",
    "~": "\u0303",
    "=": "\u0304",
    ".": "\u0307",
}
_STYLES = {
    "mathbf": "MATHEMATICAL BOLD",
    "mathit": "MATHEMATICAL ITALIC",
    "mathbb": "MATHEMATICAL DOUBLE-STRUCK",
    "mathcal": "MATHEMATICAL SCRIPT",
    "mathscr": "MATHEMATICAL SCRIPT",
    "mathfrak": "MATHEMATICAL FRAKTUR",
    "mathsf": "MATHEMATICAL SANS-SERIF",
    "mathtt": "MATHEMATICAL MONOSPACE",
}
_HIDDEN = words(
    "mbox textsf texttt textup textmd ensuremath label hspace vspace hphantom vphantom"
    " input include color"
)
_ENVIRONMENT_NAME = re.compile(r"[\w*. -]*")
_MATRICES = words("array pmatrix bmatrix smallmatrix")


class Unconvertible(ValueError):
    """The text is not LaTeX that can be rendered; the caller compares it as it stands."""


def latex_to_text(latex: str) -> str:
    """Plain text of a piece of LaTeX math, stripped.

    Raises:
        Unconvertible: commands without their arguments, or groups nested deeper than
            `MAX_DEPTH`.
    """
    return _Reader(_TOKEN.findall(latex)).until(None, 0)[0].strip()


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def until(self, end: str | None, depth: int) -> tuple[str, str]:
        r"""The text up to the token `end` (`}`, `]`, or `\end` for an environment), and
        what ended it.
        """
        if depth > MAX_DEPTH:
            raise Unconvertible(f"more than {MAX_DEPTH} nested groups")
        parts: list[str] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            command = token.rstrip()
            if token == end or (end == "\\end" and command == end):
                return "".join(parts), token
            if token == "{":
                parts.append(self.until("}", depth + 1)[0])
            elif token[0] == "\\":
                parts.append(self.command(command[1:], depth))
            elif token != "}":
                parts.append(_LIGATURES.get(token, token))
        return "".join(parts), ""

    def command(self, name: str, depth: int) -> str:
        if name in _ACCENTS:
            letters = self.argument(depth)
            if not letters:
                raise Unconvertible(f"\\{name} over nothing")
            return "".join(
                unicodedata.normalize("NFC", letter + _ACCENTS[name])
                for letter in letters
            )
        if not name.isalpha():
            return _ESCAPED.get(name or " ", name if name in "$%{}#_&" else "")
        if name in _SYMBOLS:
            return _SYMBOLS[name]
        if name in _SPACES:
            return _SPACES[name]
        if name == "frac":
            return f"{self.argument(depth)}/{self.argument(depth)}"
        if name == "sqrt":
            self.optional(depth)
            return f"sqrt({self.argument(depth)})"
        if name in _STYLES:
            return "".join(
                _styled(letter, _STYLES[name]) for letter in self.argument(depth)
            )
        if name in _HIDDEN:
            self.argument(depth)
            return ""
        if name == "textcolor":
            self.argument(depth)
            return self.argument(depth)
        if name == "begin":
            return self.environment(depth)
        if name == "end":
            self.argument(depth)
        return ""

    def argument(self, depth: int) -> str:
        """One braced group, one command, or one character."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        if self.at == len(self.tokens):
            return ""
        token = self.tokens[self.at]
        if token == "{":
            self.at += 1
            return self.until("}", depth + 1)[0]
        if token == "}":
            return ""
        if token[0] == "\\":
            name = token.rstrip()[1:]
            if name in ("frac", "sqrt", "begin"):
                raise Unconvertible(f"\\{name} as an argument without braces")
            self.at += 1
            return self.command(name, depth + 1)
        text = token.lstrip()
        if len(text) == 1:
            self.at += 1
        else:
            self.tokens[self.at] = text[1:]
        return text[0]

    def optional(self, depth: int) -> None:
        if self.at < len(self.tokens) and self.tokens[self.at] == "[":
            self.at += 1
            self.until("]", depth + 1)

    def environment(self, depth: int) -> str:
        name = self.argument(depth)
        if name == "array":
            self.argument(depth)
        body, _ = self.until("\\end", depth + 1)
        if not _ENVIRONMENT_NAME.fullmatch(self.argument(depth)):
            raise Unconvertible(f"the environment {name} does not end")
        if name not in _MATRICES:
            return body
        rows = (
            " ".join(cell.strip() for cell in row.split("   "))
            for row in body.split("\n")
        )
        return f"[ {'; '.join(rows)} ]"


def _styled(letter: str, style: str) -> str:
    """The letter of a mathematical alphabet, as the converter prints it; digits and
    signs stay plain.
    """
    if not ("a" <= letter <= "z" or "A" <= letter <= "Z"):
        return letter
    name = f"{'SMALL' if letter.islower() else 'CAPITAL'} {letter.upper()}"
    for prefix in (
        style,
        style.removeprefix("MATHEMATICAL ").replace("FRAKTUR", "BLACK-LETTER"),
    ):
        try:
            return unicodedata.lookup(f"{prefix} {name}")
        except KeyError:
            continue
    return letter
