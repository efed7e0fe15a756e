"""The number that a reply to a word problem commits itself to."""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

# A minus is a sign unless what stands before it makes it a subtraction.
_PLAIN = re.compile(
    r"(?:(?<![\w.)\]])[-\u2212])?\$?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)
_GROUP = "[,\u00a0\u2009\u202f '\u2019]"
# A minus is a sign unless what stands before it makes it a subtraction or a range.
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?<![\w.)\]%][-\u2212])[-\u2212])?[$€£]?(?P<digits>"
    rf"\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)(?:\.\d+)?"  # 1,000,000
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"  # 10,00,000
    r"|\d{1,3}(?:\.\d{3}){2,}(?![.\d])"  # 1.000.000
    r"|\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w))?|\.\d+)"
    r"(?P<below>\s?/\s?\d{1,9}(?![/\d]))?"
)
_MARK = re.compile(r"####\s*")
_BOX = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_STATED = re.compile(
    r"\banswer\s*(?:\*\*|__)?\s*(?:is|was|:|=|equals)\s*[:*_\s]*|答案(?:是|为|：|:)",
    re.IGNORECASE,
)
# a base model goes on with the next question
_NEXT = re.compile(
    r"\n\s*(?:#+\s*query|question|problem|q|human|user|instruction)\s*\d*\s*:",
    re.IGNORECASE,
)


def stated_number(reply: str) -> Fraction | None:
    """The number behind the first `####`, in the last box, in the last sentence that
    names the answer, else the last one; of the first of several continuations.
    """
    text = unicodedata.normalize("NFKC", _NEXT.split(reply)[0])
    if mark := _MARK.search(text):
        return _first(text[mark.end() :].partition("\n")[0])
    if boxes := _BOX.findall(text):
        fraction = re.sub(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", boxes[-1])
        return _first(fraction.replace("\\", " "))
    for match in reversed(list(_STATED.finditer(text))):
        sentence = re.split(r"\n|(?<=[.!?])\s", text[match.end() :])[0]
        number = _first(sentence)
        if number is not None:
            return number
    numbers = list(_NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def _first(text: str) -> Fraction | None:
    match = _NUMBER.search(text)
    return _value(match) if match else None


def _value(match: re.Match[str]) -> Fraction | None:
    digits = re.sub(_GROUP, "", match["digits"])
    if digits.count(".") > 1:
        digits = digits.replace(".", "")
    digits = "".join(
        str(unicodedata.digit(d, None) if d.isdigit() else d) for d in digits
    )
    value = Fraction(Decimal(digits))  # of any length
    if match["below"]:
        below = int(match["below"].strip(" /"))
        value = value / below if below else value
    return -value if match["sign"] else value


def shown(number: Fraction) -> str:
    """For an explanation, whatever its length."""
    short = number.numerator.bit_length() < 128
    return str(number) if short else "a number of over 38 digits"


def parse_gsm8k_response(model_output: str) -> str | None:
    """The last number of the output as text, without thousands separators (`-1,234.5`
    -> `-1234.5`), else None.
    """
    found = _PLAIN.findall(model_output)
    return (
        found[-1].replace(",", "").replace("$", "").replace("\u2212", "-")
        if found
        else None
    )
