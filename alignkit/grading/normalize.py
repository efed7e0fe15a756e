r"""The two normalisations of the published grader: MATHD (strings) and PRM800K (towards
a plain expression).

Both are kept with their oddities, because verdicts must be the published ones: units
are dropped wherever they stand (`5 m` is `5 km`), a tail in `\text` is dropped, `k=5`
is `5`. Every step is linear in the text, or runs on text of at most `MAX_CHARS`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from alignkit.grading.latex_text import Unconvertible, latex_to_text, words

MAX_CHARS = 10_000  # longer answers are compared as they stand


# Units and filler words of MathQA's answers, each also in the plural. A word is dropped
# only as a whole word.
_UNITS = words("""
    mm cm dm m km inches inch feet ft yard mile meter metre mtr mt lt
    gm g kg lb gal gallon liter litre l cc cubic cube sq square acre hectare are
    sec second s min minute minw hr h hour day month year yr noon am pm
    mph kmph kmh mp ohm deg degree percent per unit number mark ratio prime rounds
    rs rupee coin profit loss gain excess increase decrease more less rise pure Surface
    east west way by th st rd t o a c d ab bc
    men man women woman soldier monkey apple toy tile pie
    """)
_UNITS_AND_PLURALS = _UNITS | {f"{unit}s" for unit in _UNITS}
_WORD = re.compile(r"\w+")
# Those of several words, in this order; a letter, a space and any one character count
# as a unit too ("a ." to "h .").
_PHRASE_STARTS = words("m sq q profit p a b c d e f g h no v cu cm π rs")
_PHRASES = tuple(
    re.compile(rf"(^|\W){phrase}($|\W)")
    for phrase in (
        *("m sqaure", " m east", "sq m", "q .", "profit of rs", "p . m"),
        *(f"{letter} ." for letter in "abcdefgh"),
        *(
            "no change",
            "π r 2",
            "° f",
            "v â € ™",
            "cu cm",
            "sq inch",
            "∏ cm ³",
            "cu . m",
            "cm 2",
            "rs .",
        ),
    )
)
_ARRAY_BEGIN, _ARRAY_END = (
    re.compile(r"\\begin\{array\}\{.*?\}"),
    re.compile(r"\\end\{array\}"),
)
_WHOLE_TEXT = re.compile(r"^\\text\{(?P<text>.+?)\}$")
_REWRITES = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
)
_SPELLINGS = (
    ("bmatrix", "pmatrix"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\neq", "\\ne"),
    ("\\leq", "\\le"),
    ("\\geq", "\\ge"),
    ("\\left", ""),
    ("\\right", ""),
)


def unwrap_text(answer: str) -> str:
    r"""The inside of an answer that is one `\text{…}`."""
    whole = _WHOLE_TEXT.search(answer) if answer.startswith("\\text{") else None
    return whole["text"] if whole else answer


@lru_cache(maxsize=2048)
def mathd(answer: str) -> str:
    """The MATHD form of an answer, for comparison as strings (Hendrycks et al. 2021,
    MATH).
    """
    answer = unwrap_text(answer.strip()).strip()
    normal = _mathd_or_none(answer)
    return answer if normal is None else normal


def _mathd_or_none(text: str) -> str | None:
    r"""None where the published code gives up: a `\frac` or `\sqrt` with nothing after
    it, two tails in `\text`.
    """
    for old, new in _REWRITES:
        text = text.replace(old, new)
    if "array" in text:
        text = _ARRAY_END.sub(
            r"\\end{pmatrix}", _ARRAY_BEGIN.sub(r"\\begin{pmatrix}", text)
        )
    for old, new in _SPELLINGS:
        text = text.replace(old, new)
    text = drop_units(drop_text_tail(text))
    for dropped in ("^{\\circ}", "^\\circ", "\\$"):
        text = text.replace(dropped, "")
    if "\\text{ " in text:
        text, *tails = text.split("\\text{ ")
        if len(tails) > 1:
            return None
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text[0] == ".":
        text = f"0{text}"
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    roots = _braced_roots(text)
    return None if roots is None else _braced_fractions(roots.replace(" ", ""))


def drop_text_tail(text: str) -> str:
    r"""Without a `\text{…}` that runs to the end, unless nothing would be left."""
    start = text.find("\\text{")
    if start >= 0 and text.endswith("}") and start + len("\\text{") < len(text):
        return text[:start].strip() or text
    return text.strip() or text


def drop_units(text: str) -> str:
    """Without units and filler words; a text that is only one of them stays."""
    found = _WORD.findall(text)
    if not _PHRASE_STARTS.isdisjoint(found):
        for phrase in _PHRASES:
            text = phrase.sub(r"\1\2", text) or text
    if _UNITS_AND_PLURALS.isdisjoint(found) or text in _UNITS_AND_PLURALS:
        return text
    return _WORD.sub(
        lambda word: "" if word[0] in _UNITS_AND_PLURALS else word[0], text
    )


def _braced_roots(text: str) -> str | None:
    r"""`\sqrt3` as `\sqrt{3}`."""
    head, *rest = text.split("\\sqrt")
    if not all(rest):
        return None
    return head + "".join(
        f"\\sqrt{after}" if after[0] == "{" else f"\\sqrt{{{after[0]}}}{after[1:]}"
        for after in rest
    )


def _braced_fractions(text: str) -> str | None:
    r"""`\frac12` as `\frac{1}{2}`, 0.5 and a/b (two integers) as fractions."""
    head, *rest = text.split("\\frac")
    braced = [head]
    for after in rest:
        if not after:
            return None
        if after[0] == "{":
            braced.append(f"\\frac{after}")
        elif len(after) < 2:
            braced = [text]
            break
        elif after[1] == "{":
            braced.append(f"\\frac{{{after[0]}}}{after[1:]}")
        else:
            braced.append(f"\\frac{{{after[0]}}}{{{after[1]}}}{after[2:]}")
    text = "".join(braced)
    if text == "0.5":
        return "\\frac{1}{2}"
    parts = text.split("/")
    if len(parts) == 2 and all(_is_plain_integer(part) for part in parts):
        return f"\\frac{{{parts[0]}}}{{{parts[1]}}}"
    return text


def _is_plain_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return (
        digits.isascii()
        and digits.isdigit()
        and (digits == "0" == text or digits[0] != "0")
        and len(digits) <= 4000
    )


_PRM_UNITS = tuple(
    (unit, re.compile(rf"{unit}(es)?(s)? *(\^[0-9]+)?"))
    for unit in re.findall(
        r"\w+",
        "degree cm centimeter meter mile second minute hour day week month year foot"
        " feet inch yard",
    )
)
_PRM_WORDS = (
    ("\\%", "%"),
    ("\\$", "$"),
    ("$", ""),
    ("%", ""),
    (" or ", " , "),
    (" and ", " , "),
    ("million", "*10^6"),
    ("billion", "*10^9"),
    ("trillion", "*10^12"),
)
_DEGREES = re.compile(r"\^ *\\circ")
_THOUSANDS_SPACE = re.compile(r",\\! *")
_MINUS_SPACE = re.compile(r"- *")
_MIXED_NUMBER = re.compile(r"([0-9]) +([0-9])")
_THOUSANDS = re.compile(r"(\d),(\d\d\d)($|\D)")


@lru_cache(maxsize=2048)
def prm(answer: str) -> str:
    """The PRM800K form of an answer (Lightman et al. 2023): lower case, no spaces,
    LaTeX as plain text.
    """
    text = unwrap_text(answer)
    for old, new in _PRM_WORDS:
        text = text.replace(old, new)
    for unit, pattern in _PRM_UNITS:
        if unit in text:
            text = pattern.sub("", text)
    if "\\" in text:
        text = _DEGREES.sub("", text)
    if text and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    text = _THOUSANDS_SPACE.sub("", text)
    text = whole_number(text) or text
    if "\\" in text:
        text = _plain(text)
    text = _MIXED_NUMBER.sub(r"\1+\2", _MINUS_SPACE.sub("-", text))
    for dropped in (" ", "{", "}"):
        text = text.replace(dropped, "")
    text = text.lower()
    return whole_number(text.replace(",", "")) or text if is_integer(text) else text


def _plain(text: str) -> str:
    for style in ("\\tfrac", "\\dfrac"):
        text = text.replace(style, "\\frac")
    try:
        text = latex_to_text(text.replace("\\frac", " \\frac"))
    except Unconvertible:
        return text
    for sign, plain in (
        ("√", "sqrt"),
        ("π", "pi"),
        ("∞", "inf"),
        ("∪", "U"),
        ("·", "*"),
        ("×", "*"),
    ):
        text = text.replace(sign, plain)
    return text.strip()


def strip_thousands(text: str) -> str:
    """Without the commas that group digits by three (commas of tuples stay)."""
    while True:
        stripped = _THOUSANDS.sub(r"\1\2\3", text)
        if stripped == text:
            return text
        text = stripped


def is_integer(text: str) -> bool:
    """Whether the text is a number within 1e-7 of an integer, thousands commas allowed."""
    return whole_number(strip_thousands(text)) is not None


def whole_number(text: str) -> str | None:
    """`"3"` for `3.0`, `3e0`, `3.00000001`; None for what is no number, or not whole."""
    try:
        number = float(text)
        nearest = round(number)
    except (ValueError, OverflowError):
        return None
    return str(nearest) if abs(number - nearest) <= 1e-7 else None
