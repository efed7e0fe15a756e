r"""One spelling for what TeX and Unicode spell in many ways: `½`, `\dfrac12` and
`{1 \over 2}` are `\frac{1}{2}`.
"""

from __future__ import annotations

import re
import unicodedata

from alignkit.grading.latex_text import words

_SIGNS = {
    sign: command
    for line in r"""
    − - – - — - ﹣ - － - × \cdot · \cdot ⋅ \cdot ∗ \cdot ÷ / ⁄ / ∕ / ∞ \infty π \pi √ \sqrt ∛ \sqrt[3] ∜ \sqrt[4]
    ≤ \le ≦ \le ⩽ \le ≥ \ge ≧ \ge ⩾ \ge ≠ \ne ± \pm ∪ \cup ∩ \cap ∈ \in ∅ \emptyset ∖ \setminus
    ° ^\circ º ^\circ ′ ' ， , 、 , ； ; ： : （ ( ） ) 【 [ 】 ] ｛ \{ ｝ \} ％ \% ＝ = ＋ + ＜ < ＞ > ｜ |
    € \euro £ \pound ¥ \yen ￥ \yen ＄ \$
    """.splitlines()
    for sign, command in zip(line.split()[::2], line.split()[1::2], strict=True)
}
_GREEK = {
    chr(code): f"\\{unicodedata.name(chr(code)).rsplit(' ', 1)[1].lower()} "
    for code in (*range(0x3B1, 0x3C2), *range(0x3C3, 0x3CA))
    if code != 0x3C0
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_COMMANDS = {
    name: command
    for line in r"""
    dfrac frac tfrac frac cfrac frac leq le leqslant le geq ge geqslant ge neq ne lt < gt > times cdot ast cdot div /
    varnothing emptyset land and wedge and lor or vee or bar overline lvert | rvert | vert | mid | colon :
    lbrace { rbrace } lbrack [ rbrack ] implies Rightarrow iff Rightarrow to rightarrow
    """.splitlines()
    for name, command in zip(line.split()[::2], line.split()[1::2], strict=True)
}
# Commands without meaning, and those whose argument is what they show.
_DROPPED = words("""
    left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle
    limits nolimits thinspace enspace quad qquad hfill strut phantom
    boldsymbol
    """)
_STYLES = [
    "mathbf",
    "mathit",
    "mathsf",
    "boxed",
    "fbox",
    "framebox",
    "ensuremath",
    "underline",
    "bm",
    "mathcal",
]
_TEXTS = words("text mathrm textrm textbf textit texttt textsf mbox hbox operatorname")
_SPACES = re.compile(r"\\[,;:! ]|~|\\(?:quad|qquad|thinspace|enspace)(?![a-zA-Z])")
_DROP = re.compile(rf"\\(?:{'|'.join(_DROPPED)})(?![a-zA-Z])\.?")
_STYLE = re.compile(rf"\\(?:{'|'.join(_STYLES)})\s*(?=\{{)")
_TEXT = re.compile(rf"\\(?:{'|'.join(_TEXTS)})\*?\s*(?=\{{)")
_COLOR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
_COMMAND = re.compile(rf"\\({'|'.join(_COMMANDS)})(?![a-zA-Z])")
_RENAMED = {
    "lbrace": r"\{",
    "rbrace": r"\}",
    "and": r"\text{ and }",
    "or": r"\text{ or }",
}
_MATH = re.compile(r"\\[()\[\]]|(?<!\\)\$")
_GROUPED = re.compile(
    r"(?<![\d.])(?<!(?<!\\),)(\d{1,3})((?:(?:,|\{,\}|\\,|\\;|\\ |\\!|,\\!|\{,\}\\!|[\u00a0\u2009\u202f ]"
    r"|~)\d{3})+)(?![\d]|,\d)"
)
# of India: 10,00,000
_LAKHS = re.compile(r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])")
_FRACTION = re.compile(
    r"\\frac\s*(?![{\s])(\d|\\?[a-zA-Z]+)\s*(?:(\d|[a-zA-Z])|(?=\{))"
)
_ROOT = re.compile(r"\\sqrt\s*(?![{\[\s])(\d+|\\?[a-zA-Z]+)")
_ALIGNED = re.compile(
    r"\\(?:begin|end)\{(?:aligned|align\*?|gathered|split|equation\*?)\}"
)
_OVER = re.compile(
    r"\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\\over(?![a-zA-Z])([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}"
)


def plain(text: str) -> str:
    """Spelled, without the spaces that do not part digits."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", spelled(text))


def spelled(text: str) -> str:
    """The text in the one spelling; what is no answer's spelling stays as it is."""
    text = _plain_signs(text)
    text = _ALIGNED.sub("", text)
    text = _GROUPED.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
    text = _LAKHS.sub(lambda m: m[0].replace(",", ""), text)
    text = _MATH.sub(" ", text)
    text = _COLOR.sub("", text)
    text = _STYLE.sub("", text)
    text = _TEXT.sub(lambda _: r"\text", text)
    text = _SPACES.sub(" ", _DROP.sub(" ", text))
    text = _COMMAND.sub(_renamed, text)
    text = _OVER.sub(r"\\frac{\1}{\2}", text)
    for _ in range(3):  # \frac1{\frac12}
        text = _FRACTION.sub(_braced_fraction, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    return _ended(" ".join(text.split()))


def _renamed(command: re.Match[str]) -> str:
    name = _COMMANDS[command[1]]
    if not name.isalpha():
        return _RENAMED.get(command[1], name)
    return _RENAMED.get(name, f"\\{name} ")


def _braced_fraction(match: re.Match[str]) -> str:
    lower = "" if match[2] is None else f"{{{match[2]}}}"
    return f"\\frac{{{match[1]}}}{lower}"


def _plain_signs(text: str) -> str:
    if text.isascii():
        return text
    text = _RAISED_RUN.sub(lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text)
    spelled_out = []
    for letter in text:
        if letter in _SIGNS:
            sign = _SIGNS[letter]
            spelled_out.append(f"{sign} " if sign[-1].isalpha() else sign)
        elif letter in _GREEK:
            spelled_out.append(_GREEK[letter])
        elif unicodedata.category(letter) == "Nd":
            spelled_out.append(str(unicodedata.digit(letter)))
        elif "⁄" in unicodedata.normalize("NFKC", letter):
            upper, lower = unicodedata.normalize("NFKC", letter).split("⁄")
            spelled_out.append(f"\\frac{{{upper}}}{{{lower}}}")
        elif "\uff01" <= letter <= "\uff5e":
            spelled_out.append(unicodedata.normalize("NFKC", letter))
        else:
            spelled_out.append(letter)
    text = "".join(spelled_out)
    return re.sub(r"\\sqrt (\[[34]\])? ?\(([^()]*)\)", r"\\sqrt\1{\2}", text)


def _ended(text: str) -> str:
    """Without the signs of a sentence's end, and without braces around the whole."""
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip("。?;,").strip()
        if text.endswith(".") and not text.endswith("..."):
            text = text[:-1].strip()
        if _is_group(text):
            text = text[1:-1].strip()
    return text


def _is_group(text: str) -> bool:
    """Whether the first brace closes with the last sign."""
    if not (text.startswith("{") and text.endswith("}")):
        return False
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return place == len(text) - 1
    return False
